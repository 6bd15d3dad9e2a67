"""The review of parts by people: which parts are shown to whom, what people decide, and data sets made of their decisions."""
