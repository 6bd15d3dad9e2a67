"""The gateway: takes pictures from cameras and sends them to Kafka, topic `castings.images.<line>`.

```
camera -> intake -> [matcher] -> spool -> sender -> Kafka
  |         |          |           |         +-- deletes a picture from the spool after Kafka has confirmed it, otherwise sends it again
  |         |          |           +-- the queue on disk: the picture and its part id are stored in one transaction
  |         |          +-- only if a board counts the parts: finds the part of each picture by comparing their times
  |         +-- checks the size, detects the content type, refuses empty and too large pictures
  +-- drop folder, replayed folder, video stream or HTTP upload
```
"""
