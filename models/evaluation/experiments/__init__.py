"""Tables of many trainings: layers, voters, folds. Each cell is a training of its own, kept when it is done."""
