"""The gateway: from cameras to `castings.images.<line>`.

```
camera -> intake (sniff, size) -> [matcher: which part is it?] -> spool (identity and bytes, durable) -> sender -> Kafka
            |                                                        |
            +-- refused: too large, empty, spool full                +-- the camera is told `done` here
```
"""
