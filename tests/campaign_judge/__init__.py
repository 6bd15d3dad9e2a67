"""The independent judge of the campaign: reads what a run wrote into its folder and what is in Kafka, and says what went wrong.

    python -m tests.campaign_judge FOLDER [--bootstrap HOST:PORT] [--publish PAGE]

The judge shares no code with the roles. It knows the topics and their fields from docs/topics.md alone, and imports nothing of Castline.

A folder holds these files. All times are in seconds since the epoch. A file `.jsonl` has one JSON object in each line.

- `plan.json`: `seed`, `minutes`, `lines`, `machines`, `prefix` (of the topics), `bootstrap`, `runtime`, `version`. Optional: `safe` and
  `on_review` (settings of the gates), and `silence_limits`, which maps a kind of fault to `{"seconds": 5, "after": "begin"}` (or `"end"`).
- `castings.jsonl`: a line for each casting that has left the belt (`casting`, `line`, `is_defect`, `eye1_at`, `eye2_at`, `run`, `part`,
  `left_by`, `gate_moves`), for each swing of a gate (`"gate": "moved"`, `line`, `at`), and for each reset of a board (`"board": "reset"`).
- `uploads.jsonl`: a line for each attempt of a camera: `line`, `casting` (null for a picture of no casting), `run`, `part`, `sha256`,
  `sent_at`, `status`, `acknowledged_at`. Optional: `judged_part`, the part id that the gateway has answered.
- `injected.jsonl`: a line for each record that the campaign itself has written to a topic: `topic`, `partition`, `offset`.
- `faults.jsonl`: `number`, `kind`, `target`, `began_at`, `ended_at`, `alone`, `loses`, `error`.
- `memory.jsonl`: `at`, `machine`, `role`, `slot`, `pid`, `rss_bytes`, `pss_bytes`.
- `alarms.jsonl`: `at`, `source`, `name`, `line`, `state`.
- `end.json`: `last_fault_ended_at`, `stopped_at`, `topics_dumped`.
- `topics/<topic>.jsonl`: a line for each record: `partition`, `offset`, `timestamp` (milliseconds), `key`, `value` (both base64 or null),
  `headers` (pairs of a name and a base64 value). Of a picture, `sha256` may stand instead of `value`. If the folder is missing, the judge
  reads the topics from Kafka and writes it.
"""
