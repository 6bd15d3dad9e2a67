"""The gateway: takes pictures from cameras and sends them to Kafka, topic `castings.images.<line>`.

```
camera -> intake -> [matcher] -> spool -> sender -> Kafka
  |         |          |           |         +-- waits for the brokers' confirmation, repeats, parks what Kafka refuses
  |         |          |           +-- the queue on disk: the picture and its part id are stored in one transaction
  |         |          +-- only if the board counts the parts: finds the part of each picture by their times
  |         +-- checks the size, detects the content type, refuses what is empty or too large
  +-- drop folder, replayed folder, video stream or HTTP upload
```
"""
