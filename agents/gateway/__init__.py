"""The gateway: takes pictures from cameras and sends them to Kafka, topic `castings.images.<line>`.

```
camera -> intake -> [matcher] -> spool -> sender -> Kafka
  |         |          |           +-- the queue on disk
  |         |          +-- finds the part of each picture, if a board counts the parts
  |         +-- refuses empty and too large pictures
  +-- folder, video stream or HTTP upload
```
"""
