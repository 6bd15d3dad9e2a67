"""From folders of pictures to a version: collection, split, training of each voter, combination."""
