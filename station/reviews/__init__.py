"""The review of parts by people: which parts are shown to whom, what people decide, and the data sets made from their decisions."""
