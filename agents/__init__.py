"""The workers. The gateway sends pictures to Kafka, the inspector judges them, and the sorter moves gates.

The localiser makes heat maps of suspicious parts, and the archivist stores records.
"""
