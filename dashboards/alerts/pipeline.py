"""Alerts about processes, queues and disks."""

from __future__ import annotations

from dashboards.alerts.alert import Alert, Runbook

ALERTS: tuple[Alert, ...] = (
    Alert(
        "NoInspector",
        'count by (plant) (castline_process_ready) unless on (plant) (sum by (plant) (castline_process_ready{role="inspector"}) > 0)',
        "30s",
        "critical",
        "no inspector is ready in {{ $labels.plant }}: nothing is judged",
        "castline-plant",
        "Is every process up and ready?",
        Runbook(
            "Processes of the plant are there, and none of its inspectors takes work.",
            "Every part of every line goes by its safe action.",
            "The inspectors' log: a model version that is refused, Kafka away, memory. `castline models list` verifies the versions.",
            "Start them; `castline models roll-back` when a new version is refused.",
        ),
    ),
    Alert(
        "ProcessDown",
        'up{job="castline"} == 0',
        "1m",
        "critical",
        "{{ $labels.instance_name }} does not answer on its metrics page",
        "castline-plant",
        "Is every process up and ready?",
        Runbook(
            "A process that announced itself does not answer: killed, hung, or its machine is away.",
            "Depends on the role: a sorter harms its line, the gateway harms all cameras of its machine.",
            "`castline up` says in its log why it starts a process again. Is the machine reachable?",
            "Start it. A process that was taken away for good by force leaves its file in `<run_dir>/targets`: remove the file.",
        ),
    ),
    Alert(
        "WorkerStalled",
        "castline_process_stalled > 0",
        "1m",
        "critical",
        "{{ $labels.instance_name }} lives and gets nothing done",
        "castline-pipeline",
        "Which process complains about itself?",
        Runbook(
            "Work waits for the process and none was finished for `service.stall_s`, or a part of it has ended.",
            "Its lines fall behind while it looks alive.",
            "`curl <address>/healthz` says the reason; the address stands in `<run_dir>/targets/<instance>.json`.",
            "`castline up` and Kubernetes start it again by themselves after a while. By hand: SIGTERM, then start; nothing is lost.",
        ),
    ),
    Alert(
        "ProcessNotReady",
        "castline_process_ready == 0",
        "3m",
        "warning",
        "{{ $labels.instance_name }} has not taken work for 3 minutes",
        "castline-plant",
        "Is every process up and ready?",
        Runbook(
            "The process runs and says on /readyz why it takes no work: Kafka away, board away, model loading, store away.",
            "As long as others of its role are ready, none for an inspector; its line for a sorter.",
            "`curl <address>/readyz`.",
            "Remove what it names.",
        ),
    ),
    Alert(
        "LagGrowing",
        "line:castline_consumer_lag_records:sum > 30 and deriv(line:castline_consumer_lag_records:sum[5m]) > 0",
        "3m",
        "warning",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} pictures wait for an inspector, and there are more every minute',
        "castline-pipeline",
        "How many pictures wait for an inspector?",
        Runbook(
            "Cameras give more pictures than the inspectors judge.",
            "Verdicts get older until they come after their part.",
            "Pipeline dashboard: are batches full (too little computing power) or small (something else holds it up)?",
            "One more inspector for each that is at its limit, up to the image partitions. Look for what else computes on the machine.",
        ),
    ),
    Alert(
        "SpoolFilling",
        "castline_spool_bytes / castline_spool_limit_bytes > 0.5 "
        "or (predict_linear(castline_spool_bytes[10m], 3600) > castline_spool_limit_bytes and castline_spool_bytes > 1e6)",
        "1m",
        "warning",
        "{{ $labels.instance_name }}: the spool on disk fills, Kafka does not take the pictures",
        "castline-kafka",
        "How full is the gateway's disk?",
        Runbook(
            "Pictures wait on the gateway's disk because Kafka does not confirm them; half of the space is gone, "
            "or will all be in an hour.",
            "When it is full, pictures are refused: those parts are never judged.",
            "Kafka dashboard: is the broker away, or slow? `df` on the gateway's machine.",
            "Bring Kafka back; the spool empties by itself, oldest first. Raise `gateway.spool_max_bytes` where the disk allows.",
        ),
    ),
    Alert(
        "PicturesRefused",
        "sum by (plant, line, reason) (increase(castline_pictures_refused_total[10m])) > 0",
        "0m",
        "critical",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} pictures were refused in 10 minutes: {{ $labels.reason }}',
        "castline-pipeline",
        "Are pictures refused at the door?",
        Runbook(
            "The gateway did not take pictures: `spool-full`, `too-large`, or `refused-by-kafka`.",
            "These parts are never judged.",
            "The reason in the alert's text.",
            "spool-full: see SpoolFilling. too-large: the camera's settings, or `pictures.max_bytes`. "
            "refused-by-kafka: the topic's and the broker's largest record, or the gateway's rights.",
        ),
    ),
    Alert(
        "DeadLettersRising",
        "sum by (plant, line, reason) (increase(castline_dead_letters_total[10m])) > 3",
        "0m",
        "warning",
        '{{ $labels.line }}: {{ $value | printf "%.0f" }} pictures could not be judged in 10 minutes: {{ $labels.reason }}',
        "castline-pipeline",
        "What could not be judged, and why?",
        Runbook(
            "Records were parked on `castings.dead-letters`; each such part got the verdict `review`.",
            "Parts go by `on_review`; a person has to look at them.",
            "`castline dead-letters list`, and `castline dead-letters save` to look at the pictures.",
            "truncated, damaged: camera's cable or disk. not-an-image: something else writes into its folder. "
            "identity: a producer that does not name line, run and part.",
        ),
    ),
    Alert(
        "BatchesSplit",
        "sum by (plant, instance_name) (increase(castline_batches_split_total[10m])) > 0",
        "0m",
        "warning",
        "{{ $labels.instance_name }}: the networks failed on a batch, which was judged picture by picture",
        "castline-pipeline",
        "What could not be judged, and why?",
        Runbook(
            "A picture, or too little memory, made the networks fail; the batch was split until the culprit stood alone.",
            "One part of the batch has the verdict `review`; all of them were later than usual.",
            "The inspector's log names the part and the error; process memory on the Pipeline dashboard.",
            "Out of memory: smaller `batch.size`, fewer inspectors on the machine. Otherwise keep the picture and report it.",
        ),
    ),
    Alert(
        "EventLoopBlocked",
        "histogram_quantile(0.99, sum by (plant, instance_name, le) (rate(castline_event_loop_delay_seconds_bucket[5m]))) > 1",
        "5m",
        "warning",
        "{{ $labels.instance_name }}: its event loop wakes {{ $value | humanizeDuration }} late",
        "castline-pipeline",
        "Is a process out of breath?",
        Runbook(
            "Something blocks the process's loop: commits, heartbeats and deliveries are late.",
            "Kafka may take the worker for dead and hand its partitions to others, again and again.",
            "Processor use on the same dashboard: is the machine full?",
            "Fewer processes on the machine, or `model.threads` lower, so that the networks leave a core free.",
        ),
    ),
)
