"""The dashboard "Castline: quality": whether the models can still be trusted, and the alerts about models, cameras and reviews."""

from __future__ import annotations

from dashboards.panels import DashboardPage, Query, rising, stat_panel, timeseries_panel
from dashboards.promql import LINE, PLANT, quantile, rate
from dashboards.rules import Alert, Runbook

_PROBABILITY = "castline_defect_probability"

VERSIONS = "Which version judges each line?"
REVIEW_SHARE = "Which share of the parts is left to a person?"
DEFECT_SHARE = "Are there more defects than usual?"
DISAGREEMENT = "How often do the two networks disagree?"
REVIEWS = "Do people review the parts that wait?"
CAMERA = "Is a camera in trouble?"
DRIFT = "Are pictures and predictions like those that the version was made with?"
REFUSED_VERSIONS = "Was a chosen version refused?"
SHADOW = "Would the shadow version judge differently?"
REVIEW_REASONS = "Why are parts left to a person?"

PAGE = DashboardPage(
    "castline-quality",
    "Castline: quality",
    "Can the models still be trusted? The true labels are not known here, so the panels show whether pictures and verdicts have changed.",
    (
        stat_panel(
            VERSIONS,
            Query(f"sum by (line, model, runtime) (castline_model_info{{{LINE}}})", "{{line}}: {{model}} on {{runtime}}"),
            Query(f"sum by (line, model, runtime) (castline_model_shadow_info{{{LINE}}})", "{{line}}: {{model}} on {{runtime}}, shadow"),
            unit="short",
            description="Number of inspectors that judge with each version. If a line has several versions for long, a switch of versions "
            "did not end.",
            thresholds=((None, "blue"),),
            alerts=("ModelVersionsDiffer",),
            width=12,
        ),
        stat_panel(
            REVIEW_SHARE,
            f"line:castline_review_verdicts:ratio_rate1h{{{LINE}}}",
            unit="percentunit",
            description="Share of the verdict `review` over the last hour. Above 5 % people cannot keep up.",
            thresholds=rising(0.05, 0.15),
            alerts=("ReviewShareHigh",),
            width=12,
        ),
        timeseries_panel(
            DEFECT_SHARE,
            Query(f"line:castline_defect_verdicts:ratio_rate1h{{{LINE}}}", "{{line}} last hour"),
            Query(f"line:castline_defect_verdicts:ratio_rate1d{{{LINE}}}", "{{line}} last day"),
            unit="percentunit",
            description="Share of the verdict `defect`. If the hour differs from the day by ten points, castings or pictures have changed.",
            alerts=("VerdictsDrift",),
        ),
        timeseries_panel(
            DISAGREEMENT,
            Query(f"line:castline_vote_disagreements:ratio_rate1h{{{LINE}}}", "{{line}} last hour"),
            Query(rate("castline_vote_disagreements_total") + " / " + rate("castline_verdicts_total"), "{{line}} now"),
            unit="percentunit",
            description="Share of the pictures to which the two networks give different labels. The share rises first when pictures become "
            "unlike those of the training.",
            thresholds=rising(0.05, 0.1),
            alerts=("NetworksDisagree",),
        ),
        timeseries_panel(
            "How certain are the verdicts?",
            Query(quantile(0.1, _PROBABILITY), "{{line}} 10 %"),
            Query(quantile(0.5, _PROBABILITY), "{{line}} median"),
            Query(quantile(0.9, _PROBABILITY), "{{line}} 90 %"),
            unit="percentunit",
            description="Calibrated probability of a defect. Values near 0 and near 1 are good. If they move towards the middle, verdicts "
            "become less certain.",
        ),
        timeseries_panel(
            "How many verdicts are uncertain?",
            Query(
                f'1 - (sum by (line) (rate({_PROBABILITY}_bucket{{{LINE},le=~"0.2|0.20"}}[$__rate_interval])) '
                f'+ sum by (line) (rate({_PROBABILITY}_bucket{{{LINE},le="+Inf"}}[$__rate_interval])) '
                f'- sum by (line) (rate({_PROBABILITY}_bucket{{{LINE},le="0.8"}}[$__rate_interval]))) '
                f"/ sum by (line) (rate({_PROBABILITY}_count{{{LINE}}}[$__rate_interval]))",
                "{{line}}",
            ),
            unit="percentunit",
            description="Share of the pictures with a defect probability between 0.2 and 0.8, where a small change of light changes the "
            "verdict.",
            thresholds=rising(0.1, 0.3),
        ),
        timeseries_panel(
            REVIEW_REASONS,
            Query(rate("castline_reviews_total", "line, reason"), "{{line}} {{reason}}"),
            unit="cps",
            description="The reason `doubt` comes from the model: the probability lies near the threshold. All other reasons come from the "
            "picture.",
            alerts=("ReviewShareHigh",),
        ),
        timeseries_panel(
            REVIEWS,
            Query(f"max by (state) (castline_review_queue_parts{{{PLANT}}})", "{{state}} opinion, parts"),
            Query(f"max(castline_review_queue_oldest_seconds{{{PLANT}}}) / 3600", "age of the oldest, h"),
            Query(f"max(castline_review_overdue_seconds{{{PLANT}}}) / 3600", "allowed age, h"),
            unit="short",
            description="Parts that wait for a person, and the age of the oldest. The state `open` means that nobody has looked at the "
            "part.",
            alerts=("ReviewQueueOverdue",),
        ),
        timeseries_panel(
            "What are the verdicts of each version?",
            Query(rate("castline_verdicts_total", "model, label"), "{{model}} {{label}}"),
            unit="cps",
            description="Verdicts of each model version by label, to compare the versions before and after a switch.",
        ),
        timeseries_panel(
            CAMERA,
            Query(
                f'max by (line, state) (castline_camera_state{{{LINE},state!="gap"}}) > 0 '
                f'or min by (line, state) (castline_camera_state{{{LINE},state="gap"}}) > 0',
                "{{line}} {{state}}",
            ),
            unit="short",
            description="States of cameras in trouble: frozen, dark, bright, blurred, or gap (no more pictures). An empty panel means "
            "that all cameras work.",
            thresholds=rising(0.5, 1),
            alerts=("CameraFrozen", "CameraDarkOrBright", "CameraBlurred", "CameraGap"),
        ),
        timeseries_panel(
            DRIFT,
            Query(f"max by (line, of) (castline_drift_psi{{{LINE}}})", "{{line}} {{of}}"),
            unit="short",
            description="Population stability index of the last 500 pictures against the version's reference. Below 0.1 they are alike, "
            "above 0.25 they differ.",
            thresholds=rising(0.1, 0.25),
            alerts=("PicturesDrift",),
        ),
        timeseries_panel(
            "How many heat maps are made?",
            Query(rate("castline_findings_total"), "{{line}} heat maps a second"),
            Query(rate("castline_findings_dropped_total"), "{{line}} dropped for lack of time"),
            Query(rate("castline_findings_failed_total"), "{{line}} failed"),
            unit="cps",
            description="The inspector explains suspicious pictures by heat maps in its idle time. Without heat maps, either there is no "
            "idle time, or the version has no AlexNet.",
        ),
        timeseries_panel(
            "How long after its verdict comes a heat map?",
            Query(quantile(0.5, "castline_finding_seconds", "plant", scope=PLANT), "{{plant}} median"),
            Query(quantile(0.95, "castline_finding_seconds", "plant", scope=PLANT), "{{plant}} 95 %"),
            unit="s",
            description="A person who uploads a picture waits this long for the heat map.",
        ),
        timeseries_panel(
            SHADOW,
            Query(
                f"{rate('castline_shadow_disagreements_total', 'line, model')} / {rate('castline_shadow_judged_total', 'line, model')}",
                "{{line}} {{model}}",
            ),
            Query(rate("castline_shadow_dropped_total"), "{{line}} pictures a second dropped for lack of time"),
            unit="percentunit",
            description="Share of the pictures to which the shadow version gives another label. Look at these pictures before you switch "
            "to the version. Dropped pictures are not in the share.",
            thresholds=rising(0.02, 0.1),
        ),
        timeseries_panel(
            REFUSED_VERSIONS,
            Query(rate("castline_model_refused_total", "line, reason"), "{{line}} {{reason}}"),
            Query(
                f'max by (instance_name) (castline_model_open_seconds_sum{{{PLANT},role="inspector"}})',
                "{{instance_name}} s to open its versions",
            ),
            unit="short",
            description="A refused version does not judge. The version before it continues.",
            thresholds=rising(0.0001, 1),
            alerts=("ModelRefused",),
        ),
    ),
    time_from="now-24h",
)

# Alerts about shares of verdicts need this many verdicts in an hour, because smaller numbers vary by chance.
_ENOUGH_VERDICTS = "sum by (plant, line) (increase(castline_verdicts_total[1h])) > 200"

MODEL_ALERTS: tuple[Alert, ...] = (
    Alert(
        "VerdictsDrift",
        "abs(line:castline_defect_verdicts:ratio_rate1h - line:castline_defect_verdicts:ratio_rate1d) > 0.1 "
        f"and on (plant, line) ({_ENOUGH_VERDICTS})",
        "30m",
        "warning",
        "{{ $labels.line }}: the share of defects differs by {{ $value | humanizePercentage }} from the last day's",
        PAGE.uid,
        DEFECT_SHARE,
        Runbook(
            "The share of defects in the last hour differs by more than ten points from that of the last day.",
            "Either the castings have changed and the foundry has to know at once, or the pictures have changed and the verdicts are "
            "wrong.",
            "Open ten of the latest pictures on the station. Look for other light, lost focus, dirt on the lens, or another product.",
            "Clean and adjust the camera. If the castings have changed, tell the shift. If the product is new, train a version on it.",
        ),
    ),
    Alert(
        "NetworksDisagree",
        f"line:castline_vote_disagreements:ratio_rate1h > 0.1 and on (plant, line) ({_ENOUGH_VERDICTS})",
        "30m",
        "warning",
        "{{ $labels.line }}: the two networks disagree on {{ $value | humanizePercentage }} of the pictures",
        PAGE.uid,
        DISAGREEMENT,
        Runbook(
            "AlexNet and LeNet give different labels to more than one picture in ten.",
            "More parts get a wrong verdict than the version's figures say, because the pictures are unlike those of its training.",
            "Look on the Quality dashboard whether the disagreement began suddenly (camera, light) or slowly (wear, new product).",
            "Do what VerdictsDrift says. Correct wrong verdicts in the review, then train again.",
        ),
    ),
    Alert(
        "ReviewShareHigh",
        f"line:castline_review_verdicts:ratio_rate1h > 0.05 and on (plant, line) ({_ENOUGH_VERDICTS})",
        "15m",
        "warning",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts are left to a person's review",
        PAGE.uid,
        REVIEW_SHARE,
        Runbook(
            "More than one part in twenty gets the verdict `review`.",
            'People cannot keep up. On lines with `on_review = "divert"` the reject chute fills with good castings.',
            "Look at the reasons on the Quality dashboard. `doubt` means a probability near the threshold; the other reasons mean pictures "
            "that cannot be read.",
            "If pictures cannot be read, see DeadLettersRising. If the model is in doubt, do what VerdictsDrift says, or train a version "
            "with a narrower review band (`castline train --review-share`).",
        ),
    ),
    Alert(
        "ModelVersionsDiffer",
        "count by (plant, line) (count by (plant, line, model) (castline_model_info == 1)) > 1",
        "10m",
        "warning",
        '{{ $value | printf "%.0f" }} model versions judge {{ $labels.line }} at the same time',
        PAGE.uid,
        VERSIONS,
        Runbook(
            "For ten minutes, inspectors have judged one line with different versions, because a switch of versions did not end.",
            "The same casting may get another verdict from another inspector.",
            "Look on the Quality dashboard which version each line has, and on how many inspectors.",
            "Choose the version again with `castline models choose`. Restart the inspectors that keep the other version, and set "
            "`model.version` to the same value on all machines.",
        ),
    ),
    Alert(
        "ModelRefused",
        "sum by (plant, line, reason) (increase(castline_model_refused_total[1h])) > 0",
        "0m",
        "warning",
        "{{ $labels.line }}: a chosen model version was refused, reason {{ $labels.reason }}",
        PAGE.uid,
        REFUSED_VERSIONS,
        Runbook(
            "A version was chosen for the line and cannot judge. It is absent, damaged or tampered with, it has other classes, or it gives "
            "other probabilities on its golden set.",
            "No part is harmed, because the version before continues to judge. The chosen version does not.",
            "The inspector's log says what was expected and what was found. `castline models verify` checks the version's files.",
            "Copy the version again from the machine where it was trained, or choose a version that is complete.",
        ),
    ),
)

# Each inspector sees a share of the pictures only, so the gap counts when all inspectors of the line agree.
_GAP = 'min by (plant, line) (castline_camera_state{state="gap"}) > 0'
# A standing belt gives no pictures. Where a board counts the parts, it shows that the belt stands.
_BELT_STANDS = "on (plant, line) (sum by (plant, line) (rate(castline_parts_counted_total[5m])) == 0)"

CAMERA_ALERTS: tuple[Alert, ...] = (
    Alert(
        "CameraFrozen",
        'max by (plant, line) (castline_camera_state{state="frozen"}) > 0',
        "0m",
        "critical",
        "{{ $labels.line }}: the camera sends the same picture again and again",
        PAGE.uid,
        CAMERA,
        Runbook(
            "Five or more pictures in a row are equal in every pixel. A working camera never takes two such pictures.",
            "Every part is judged by the picture of another part, so bad castings stay on the belt.",
            "Look at the line's last pictures on the station. The inspector's log says since when they are equal.",
            "Hold back the castings since then. Switch the camera off and on. Check its driver or the program that writes its files.",
        ),
    ),
    Alert(
        "CameraDarkOrBright",
        'max by (plant, line, state) (castline_camera_state{state=~"dark|bright"}) > 0',
        "1m",
        "critical",
        "{{ $labels.line }}: the pictures are too {{ $labels.state }} to be judged",
        PAGE.uid,
        CAMERA,
        Runbook(
            "The mean grey level of the latest pictures lies far outside that of the pictures that the version was made with.",
            "Verdicts on such pictures are guesses.",
            "Look at the line's last pictures on the station. Look on the Quality dashboard whether the brightness changed suddenly or "
            "slowly.",
            "If the pictures are dark, check lamp, cable, lens cap and exposure. If they are bright, look for sunlight on the belt, a long "
            "exposure, or a lamp that is too near. Then inspect the castings of that time again.",
        ),
    ),
    Alert(
        "CameraBlurred",
        'max by (plant, line) (castline_camera_state{state="blurred"}) > 0',
        "2m",
        "warning",
        "{{ $labels.line }}: the pictures are not sharp",
        PAGE.uid,
        CAMERA,
        Runbook(
            "The latest pictures have less than half the sharpness of the most blurred pictures that the version was made with.",
            "Small holes and scratches are overlooked, and nothing else shows it.",
            "Look at the line's last pictures on the station. Are they out of focus everywhere, or smeared along the belt?",
            "If they are out of focus, correct the focus and clean the lens. If they are smeared, use a shorter exposure, more light or a "
            "slower belt.",
        ),
    ),
    Alert(
        "CameraGap",
        f"{_GAP} unless {_BELT_STANDS}",
        "1m",
        "warning",
        "{{ $labels.line }}: no more pictures come",
        PAGE.uid,
        CAMERA,
        Runbook(
            "No picture has come for twenty times the usual interval, and no board reports that the belt stands. After an hour the line is "
            "taken to stand.",
            "If castings still run, they are not judged; see LineSilent.",
            "Check whether the belt runs, and on the Pipeline dashboard whether pictures arrive at the gateway.",
            "Check the camera's power and cable, the trigger, and the folder it writes to. If the line was stopped on purpose, do nothing.",
        ),
    ),
    Alert(
        "PicturesDrift",
        "max by (plant, line, of) (castline_drift_psi) > 0.25",
        "10m",
        "warning",
        "{{ $labels.line }}: the {{ $labels.of }} of the pictures is no longer like that of the version's training",
        PAGE.uid,
        DRIFT,
        Runbook(
            "Over the last 500 pictures, the population stability index against the version's reference is above 0.25. Light, camera or "
            "product have changed, or, for defect-probability, the castings are unlike those of the training.",
            "More parts may get a wrong verdict than the version's figures say. A mere change of the share of defects does not cause this "
            "alert.",
            "See which value has changed: brightness (light, exposure), sharpness (focus, surface) or defect-probability (the castings). "
            "Did it change suddenly or slowly?",
            "Bring light and focus back to what they were. If the pictures are to stay like this, review some hundred of them and train on "
            "them.",
        ),
    ),
)

REVIEW_ALERTS: tuple[Alert, ...] = (
    Alert(
        "ReviewQueueOverdue",
        "max by (plant) (castline_review_queue_oldest_seconds) > on (plant) max by (plant) (castline_review_overdue_seconds)",
        "10m",
        "warning",
        "a part has waited {{ $value | humanizeDuration }} for a person's review",
        PAGE.uid,
        REVIEWS,
        Runbook(
            "A part that the model left to people has waited longer than `review.overdue_hours`.",
            "Castings lie aside without a decision, and the next training lacks the parts that would teach it most.",
            "Open the Review page of the station. See how many parts wait and why, and whether they wait for a second opinion that nobody "
            "else can give.",
            "Review the parts; the most informative come first. If there are too many, raise `review.least_doubt` or lower "
            "`review.audit_share`. With only one reviewer set `review.second_opinion = false`.",
        ),
    ),
)
