"""Alerts about cameras, and about pictures and answers that are no longer what the version was made for."""

from __future__ import annotations

from dashboards.alerts.alert import Alert, Runbook

# What a line's inspectors agree on: each of them sees a share of the pictures.
_GAP = 'min by (plant, line) (castline_camera_state{state="gap"}) > 0'
# A belt that stands gives no pictures; where a board counts the parts, it knows.
_STANDS = "on (plant, line) (sum by (plant, line) (rate(castline_parts_counted_total[5m])) == 0)"

ALERTS: tuple[Alert, ...] = (
    Alert(
        "CameraFrozen",
        'max by (plant, line) (castline_camera_state{state="frozen"}) > 0',
        "0m",
        "critical",
        "{{ $labels.line }}: the camera gives the same picture again and again",
        "castline-quality",
        "Is a camera in trouble?",
        Runbook(
            "Five or more pictures running do not differ in a single pixel. No camera that works takes two such pictures.",
            "Every part is judged by the picture of another: bad castings stay on the belt.",
            "The line's last pictures on the station. The inspector's log says since when and how many.",
            "Hold back the castings since then. Switch the camera off and on; look at its driver or the program that writes its files.",
        ),
    ),
    Alert(
        "CameraDarkOrBright",
        'max by (plant, line, state) (castline_camera_state{state=~"dark|bright"}) > 0',
        "1m",
        "critical",
        "{{ $labels.line }}: the pictures are too {{ $labels.state }} to be judged",
        "castline-quality",
        "Is a camera in trouble?",
        Runbook(
            "The mean grey of the latest pictures lies far outside that of the pictures the version was made with.",
            "Verdicts on such pictures are guesses.",
            "The line's last pictures on the station; brightness on the Quality dashboard: at once, or slowly?",
            "Dark: lamp, cable, lens cap, exposure. Bright: sunlight on the belt, exposure, a lamp too near. "
            "Then look at the castings of that time again.",
        ),
    ),
    Alert(
        "CameraBlurred",
        'max by (plant, line) (castline_camera_state{state="blurred"}) > 0',
        "2m",
        "warning",
        "{{ $labels.line }}: the pictures are not sharp",
        "castline-quality",
        "Is a camera in trouble?",
        Runbook(
            "The latest pictures have less than half of the sharpness of the most blurred ones that the version was made with.",
            "Small holes and scratches are not seen; misses rise without any other sign.",
            "The line's last pictures on the station: out of focus all over, or smeared along the belt?",
            "All over: focus, dirt or oil on the lens. Along the belt: shorter exposure, more light, a slower belt.",
        ),
    ),
    Alert(
        "CameraGap",
        f"{_GAP} unless {_STANDS}",
        "1m",
        "warning",
        "{{ $labels.line }}: the pictures have broken off",
        "castline-quality",
        "Is a camera in trouble?",
        Runbook(
            "No picture has come for twenty times as long as the latest lay apart, and no board says that the belt stands. "
            "After an hour the line is taken to stand.",
            "Where castings still run, they are not judged; see LineSilent.",
            "Is the belt running? Do pictures arrive at the gateway (Pipeline dashboard)?",
            "Camera's power and cable, trigger, the folder it writes to. Nothing where the line was stopped on purpose.",
        ),
    ),
    Alert(
        "PicturesDrift",
        "max by (plant, line, of) (castline_drift_psi) > 0.25",
        "10m",
        "warning",
        "{{ $labels.line }}: the {{ $labels.of }} of the pictures is no longer what the version was made for",
        "castline-quality",
        "Are pictures and answers what the version was made for?",
        Runbook(
            "Over the last 500 pictures the population stability index against the version's reference is above 0.25: "
            "another light, another camera, another product, or (defect-probability) castings the version has not learned.",
            "The version's figures do not hold for these pictures. A mere rise or fall of defects is not counted here.",
            "Which of the three: brightness (light, exposure), sharpness (focus, surface), defect-probability (the castings)? "
            "At once or slowly?",
            "Bring light and focus back to what they were. If the pictures are to stay so: review some hundred of them and train on them.",
        ),
    ),
)
