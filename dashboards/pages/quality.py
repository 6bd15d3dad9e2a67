"""The dashboard "Castline: quality" shows if the models can still be trusted.

This module also defines the alerts about models, cameras and reviews.
"""

from __future__ import annotations

from dashboards.panels import DashboardPage, Query, rising, stat_panel, timeseries_panel
from dashboards.promql import LINE, PLANT, quantile, rate
from dashboards.rules import Alert, Runbook

_PROBABILITY = "castline_defect_probability"

VERSIONS = "Which version judges each line?"
REVIEW_SHARE = "Which share of the parts is left to a person?"
DEFECT_SHARE = "Are there more defects than usual?"
KINDS = "Which types of defect are found?"
DISAGREEMENT = "How often do the two networks disagree?"
REVIEWS = "Do people review the parts that wait?"
CAMERA = "Is a camera in trouble?"
DRIFT = "Are pictures and predictions like those of the version's reference?"
REFUSED_VERSIONS = "Was a chosen version refused?"
SHADOW = "Would the shadow version judge differently?"
REVIEW_REASONS = "Why are parts left to a person?"
GOLDEN_PARTS = "Do golden parts get the right verdict?"

PAGE = DashboardPage(
    "castline-quality",
    "Castline: quality",
    "Can the models still be trusted? Castline does not know the true labels, so the panels show whether pictures and verdicts have "
    "changed.",
    (
        stat_panel(
            VERSIONS,
            Query(f"sum by (line, model, runtime) (castline_model_info{{{LINE}}})", "{{line}}: {{model}} on {{runtime}}"),
            Query(f"sum by (line, model, runtime) (castline_model_shadow_info{{{LINE}}})", "{{line}}: {{model}} on {{runtime}}, shadow"),
            unit="short",
            description="Each value belongs to one version of a line: the number of inspectors that judge the line with this version. If "
            "a line has several versions for more than a few minutes, some inspectors did not switch to the new version.",
            thresholds=((None, "blue"),),
            alerts=("ModelVersionsDiffer",),
            width=12,
        ),
        timeseries_panel(
            REVIEW_SHARE,
            Query(f"line:castline_review_verdicts:ratio_rate1h{{{LINE}}}", "{{line}} last hour"),
            Query(f"max by (line, bound) (castline_review_share_limit{{{LINE}}})", "{{line}} limit: {{bound}}"),
            unit="percentunit",
            description="Share of the verdicts of the last hour that are `review`, and the two limits from the settings of the line "
            "(`review_share_low` and `review_share_high`).",
            alerts=("ReviewShareHigh", "ReviewShareLow"),
        ),
        timeseries_panel(
            DEFECT_SHARE,
            Query(f"line:castline_defect_verdicts:ratio_rate1h{{{LINE}}}", "{{line}} last hour"),
            Query(f"line:castline_defect_verdicts:ratio_rate1d{{{LINE}}}", "{{line}} last day"),
            unit="percentunit",
            description="Share of the verdicts that are `defect`, in the last hour and in the last day. If the two shares differ by more "
            "than ten percentage points, the castings or the pictures have changed.",
            alerts=("VerdictsDrift",),
        ),
        timeseries_panel(
            KINDS,
            Query(rate("castline_defects_total", "line, kind"), "{{line}} {{kind}}"),
            unit="cps",
            description="Defective parts by the type of their largest defect. The type is `unknown` if the version was not sure. Only "
            "versions with a segmentation head name types. A segmentation head is a network that marks defects.",
        ),
        timeseries_panel(
            DISAGREEMENT,
            Query(f"line:castline_vote_disagreements:ratio_rate1h{{{LINE}}}", "{{line}} last hour"),
            Query(rate("castline_vote_disagreements_total") + " / " + rate("castline_verdicts_total"), "{{line}} now"),
            unit="percentunit",
            description="Share of the pictures to which the networks of a model version give different labels. This share is the first to "
            "rise when pictures become unlike the training pictures.",
            thresholds=rising(0.05, 0.1),
            alerts=("NetworksDisagree",),
        ),
        timeseries_panel(
            "How certain are the verdicts?",
            Query(quantile(0.1, _PROBABILITY), "{{line}} 10 %"),
            Query(quantile(0.5, _PROBABILITY), "{{line}} median"),
            Query(quantile(0.9, _PROBABILITY), "{{line}} 90 %"),
            unit="percentunit",
            description="Defect probability of the pictures. Half of the pictures are below the median, 10 % are below the lowest curve, "
            "and 90 % are below the highest curve. If the curves move towards 0.5, the verdicts become less certain.",
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
            description="Share of the pictures with a defect probability between 0.2 and 0.8. A small change of light can change the "
            "verdicts on these pictures.",
            thresholds=rising(0.1, 0.3),
        ),
        timeseries_panel(
            REVIEW_REASONS,
            Query(rate("castline_reviews_total", "line, reason"), "{{line}} {{reason}}"),
            unit="cps",
            description="The reason `doubt` means that the defect probability lies near the threshold. The reason `anomaly` means that "
            "the part differs from good parts. The other reasons mean that the picture could not be judged.",
            alerts=("ReviewShareHigh",),
        ),
        timeseries_panel(
            REVIEWS,
            Query(f"max by (state) (castline_review_queue_parts{{{PLANT}}})", "{{state}} opinion, parts"),
            Query(f"max(castline_review_queue_oldest_seconds{{{PLANT}}}) / 3600", "age of the oldest, h"),
            Query(f"max(castline_review_overdue_seconds{{{PLANT}}}) / 3600", "allowed age, h"),
            unit="short",
            description="Number of parts that wait for a person, and the age of the oldest part. In the state `open`, nobody has reviewed "
            "the part yet. In the states `second` and `third`, the part waits for another person's opinion.",
            alerts=("ReviewQueueOverdue",),
        ),
        timeseries_panel(
            GOLDEN_PARTS,
            Query(f"max by (line) (castline_golden_parts_wrong{{{LINE}}})", "{{line}} wrong verdict"),
            Query(f"max by (line) (castline_golden_parts_missing{{{LINE}}})", "{{line}} not shown in the last shift"),
            unit="short",
            description="Golden parts are parts for which people know the right verdict. Each golden part passes the camera once in each "
            "shift.",
            thresholds=rising(0.5, 1),
            alerts=("GoldenPartWrong", "GoldenPartMissing"),
        ),
        timeseries_panel(
            "What are the verdicts of each version?",
            Query(rate("castline_verdicts_total", "model, label"), "{{model}} {{label}}"),
            unit="cps",
            description="Verdicts of each model version, by label. Compare the versions before and after a switch.",
        ),
        timeseries_panel(
            CAMERA,
            Query(
                f'max by (line, state) (castline_camera_state{{{LINE},state!="gap"}}) > 0 '
                f'or min by (line, state) (castline_camera_state{{{LINE},state="gap"}}) > 0',
                "{{line}} {{state}}",
            ),
            unit="short",
            description="Faults of the cameras: `frozen`, `dark`, `bright`, `blurred`, or `gap` (no more pictures come). If the panel is "
            "empty, all cameras work.",
            thresholds=rising(0.5, 1),
            alerts=("CameraFrozen", "CameraDarkOrBright", "CameraBlurred", "CameraGap"),
        ),
        timeseries_panel(
            DRIFT,
            Query(f"max by (line, of) (castline_drift_psi{{{LINE}}})", "{{line}} {{of}}"),
            unit="short",
            description="The population stability index says how much the last 500 pictures differ from the reference pictures of the "
            "version. Below 0.1, the pictures are alike. Above 0.25, the pictures differ clearly.",
            thresholds=rising(0.1, 0.25),
            alerts=("PicturesDrift",),
        ),
        timeseries_panel(
            "How many heat maps are made?",
            Query(rate("castline_findings_total"), "{{line}} heat maps a second"),
            Query(rate("castline_findings_dropped_total"), "{{line}} dropped for lack of time"),
            Query(rate("castline_findings_failed_total"), "{{line}} failed"),
            unit="cps",
            description="If many heat maps are dropped, the processors are busy, and you can start another localiser on another machine. "
            "If no heat maps are made, no localiser runs, or the version supports no heat maps.",
        ),
        timeseries_panel(
            "How long after its verdict comes a heat map?",
            Query(quantile(0.5, "castline_finding_seconds", "plant", scope=PLANT), "{{plant}} median"),
            Query(quantile(0.95, "castline_finding_seconds", "plant", scope=PLANT), "{{plant}} 95 %"),
            unit="s",
            description="Time from the verdict on a picture until the brokers have confirmed its heat map. A person who uploads a picture "
            "in the station waits for this heat map.",
        ),
        timeseries_panel(
            SHADOW,
            Query(
                f"{rate('castline_shadow_disagreements_total', 'line, model')} / {rate('castline_shadow_judged_total', 'line, model')}",
                "{{line}} {{model}}",
            ),
            Query(rate("castline_shadow_dropped_total"), "{{line}} pictures a second dropped for lack of time"),
            unit="percentunit",
            description="Share of the pictures to which the shadow version and the version in force give different labels. Look at these "
            "pictures before you put the shadow version in force.",
            thresholds=rising(0.02, 0.1),
        ),
        timeseries_panel(
            REFUSED_VERSIONS,
            Query(rate("castline_model_refused_total", "line, reason"), "{{line}} {{reason}}"),
            Query(
                f'max by (machine, instance_name) (castline_model_open_seconds_sum{{{PLANT},role="inspector"}})',
                "{{machine}} {{instance_name}} s to open its versions",
            ),
            unit="short",
            description="How often inspectors refused a chosen version, by reason. After a refusal, the previous version continues to "
            "judge. The panel also shows how many seconds each inspector needed to open its versions.",
            thresholds=rising(0.0001, 1),
            alerts=("ModelRefused",),
        ),
    ),
    time_from="now-24h",
)

# With 200 verdicts or fewer in an hour, the shares vary too much by chance for an alert.
_ENOUGH_VERDICTS = "sum by (plant, line) (increase(castline_verdicts_total[1h])) > 200"

_REVIEW_RATIO = "line:castline_review_verdicts:ratio_rate1h"


def _review_limit(bound: str) -> str:
    return f'max by (plant, line) (castline_review_share_limit{{bound="{bound}"}})'


MODEL_ALERTS: tuple[Alert, ...] = (
    Alert(
        "VerdictsDrift",
        "abs(line:castline_defect_verdicts:ratio_rate1h - line:castline_defect_verdicts:ratio_rate1d) > 0.1 "
        f"and on (plant, line) ({_ENOUGH_VERDICTS})",
        "30m",
        "warning",
        "{{ $labels.line }}: the share of defects in the last hour differs by {{ $value | humanizePercentage }} from that of the last day",
        PAGE.uid,
        DEFECT_SHARE,
        Runbook(
            "The share of the parts with the verdict `defect` in the last hour is more than ten percentage points above or below the "
            "share in the last day.",
            "If the castings have changed, the foundry must know at once. If only the pictures have changed, the verdicts may be wrong.",
            "On the station, open ten of the latest pictures. Look for a change of light, lost focus, dirt on the lens, or another "
            "product.",
            "If the pictures have changed, clean and adjust the camera. If the castings have changed, inform the shift. If the product is "
            "new, train a version on it.",
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
            "The two networks, AlexNet and LeNet, gave different labels to more than one picture in ten.",
            "Probably the pictures are unlike the training pictures. Then more parts get a wrong verdict than in the evaluation of the "
            "version.",
            "On the Quality dashboard, check whether the disagreement began suddenly or slowly. A sudden change points to the camera or "
            "the light. A slow change points to wear or a new product.",
            "Do what the runbook says under `VerdictsDrift`. Correct wrong verdicts on the Review page of the station, then train a new "
            "version.",
        ),
    ),
    Alert(
        "ReviewShareHigh",
        f"{_REVIEW_RATIO} > on (plant, line) {_review_limit('high')} and on (plant, line) ({_ENOUGH_VERDICTS})",
        "15m",
        "warning",
        "{{ $labels.line }}: {{ $value | humanizePercentage }} of the parts are left to a person's review",
        PAGE.uid,
        REVIEW_SHARE,
        Runbook(
            "In the last hour, the share of parts with the verdict `review` was above the limit of the line, `lines.review_share_high`.",
            'People cannot review so many parts. On lines with `on_review = "divert"`, the reject chute fills with good castings.',
            "On the Quality dashboard, look at the panel “Why are parts left to a person?”. The reason `doubt` means that the defect "
            "probability lies near the threshold. The reason `anomaly` means that the part differs from good parts. The other reasons "
            "mean that the picture could not be judged.",
            "If most reviews come from pictures that cannot be judged, do what the runbook says under `DeadLettersRising`.\n\n"
            "If most reviews have the reason `doubt`, do what the runbook says under `VerdictsDrift`. You can also train a version that "
            "leaves fewer parts to a person (`castline train --review-share`).\n\n"
            "If many reviews are normal for this line, raise its limit `lines.review_share_high`.",
        ),
    ),
    Alert(
        "ReviewShareLow",
        f"{_REVIEW_RATIO} < on (plant, line) {_review_limit('low')} and on (plant, line) ({_ENOUGH_VERDICTS})",
        "15m",
        "warning",
        "{{ $labels.line }}: only {{ $value | humanizePercentage }} of the parts are left to a person's review",
        PAGE.uid,
        REVIEW_SHARE,
        Runbook(
            "In the last hour, the share of parts with the verdict `review` was below the limit of the line, `lines.review_share_low`.",
            "Parts that a person should see may pass without a review, because a threshold, a cut-off or the model version has changed.",
            "In the panel “Which share of the parts is left to a person?”, find the time at which the share fell. Then look for a change "
            "at this time: the page “Models” of the station and `castline lines show` say who changed what, and when.",
            "If somebody changed a threshold, a cut-off or the model version by mistake, set the old value again. If fewer parts are "
            "doubtful because the castings have become better, lower `lines.review_share_low`.",
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
            "For ten minutes, the inspectors have judged the line with different model versions, because some inspectors did not "
            "switch to the new version.",
            "Two model versions can give the same casting different verdicts. So the verdict depends on which inspector happens to get "
            "the picture.",
            "On the Quality dashboard, open the panel “Which version judges each line?”. It shows how many inspectors use each version.",
            "Choose the new version again with `castline models choose`. Restart the inspectors that still use the old version. Set "
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
            "A version was chosen for the line, but the inspectors refused it.\n\n"
            "There are several possible causes. A file of the version is damaged, or its classes differ from the classes of the version in "
            "use. Or the version gives wrong verdicts on its golden set, the test pictures that it contains.",
            "No part is affected, because the version that was in force before continues to judge.",
            "Read the inspector's log, which says what was expected and what was found. `castline models verify` repeats the check of the "
            "version's files and of its golden set.",
            "Copy the version again from the machine where it was trained, or choose a version that is complete.",
        ),
    ),
)

# True if all inspectors of a line report the camera state `gap`, which means that no more pictures come. A single inspector can report
# a gap although the camera works, because each inspector gets only some pictures of the line.
_GAP = 'min by (plant, line) (castline_camera_state{state="gap"}) > 0'
# True if the board has counted no part for five minutes. Probably the belt has stopped.
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
            "Five or more pictures in a row are equal in every pixel. Two pictures of a working camera always differ.",
            "Every part is judged by the picture of another part, so bad castings may pass the gate.",
            "On the station, look at the last pictures of the line. The inspector's log says when the camera began to send equal pictures.",
            "Hold back the castings that have passed since the pictures became equal. Switch the camera off and on. Check the camera's "
            "driver, or the program that writes its files.",
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
            "The mean grey level of the latest pictures is far from the mean grey level of the version's reference pictures.",
            "The verdicts on pictures that are too dark or too bright are unreliable.",
            "On the station, look at the last pictures of the line. On the Quality dashboard, check whether the brightness changed "
            "suddenly or slowly.",
            "If the pictures are dark, check the lamp, the cable, the lens cap and the exposure. If they are bright, look for sunlight "
            "on the belt, a long exposure, or a lamp that is too near.\n\nThen inspect all castings again that passed while the pictures "
            "were too dark or too bright.",
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
            "The latest pictures have less than half the sharpness of the most blurred reference pictures of the version.",
            "On blurred pictures the networks overlook small holes and scratches. The other alerts probably do not notice these missed "
            "defects.",
            "On the station, look at the last pictures of the line. Check whether they are out of focus everywhere, or smeared in the "
            "direction of the belt.",
            "If the pictures are out of focus, correct the focus and clean the lens. If they are smeared, use a shorter exposure, more "
            "light or a slower belt.",
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
            "No picture has come for more than twenty times the usual interval, and for at least 30 seconds, although the belt seems to "
            "run.\n\nAfter an hour without a picture, the line counts as stopped and the alert ends.",
            "If castings move past the camera without a picture, they are not judged; see the alert `LineSilent`.",
            "Check whether the belt runs. On the Line dashboard, check whether pictures arrive at the gateway.",
            "Check the camera's power and cable, the trigger, and the folder into which the camera writes. If the line was stopped on "
            "purpose, do nothing.",
        ),
    ),
    Alert(
        "PicturesDrift",
        "max by (plant, line, of) (castline_drift_psi) > 0.25",
        "10m",
        "warning",
        "{{ $labels.line }}: the {{ $labels.of }} of the pictures differs from that of the version's reference pictures",
        PAGE.uid,
        DRIFT,
        Runbook(
            "The last 500 pictures differ clearly from the version's reference pictures (population stability index above 0.25). The "
            "light, the camera, the product or the castings have changed.",
            "More parts may get a wrong verdict than in the evaluation of the version. If only the share of defects has changed, this "
            "alert does not fire. The alert `VerdictsDrift` watches this share.",
            "Read the alert's summary, which names the value that has changed: brightness (light, exposure), sharpness (focus, surface) "
            "or defect-probability (the castings). On the Quality dashboard, check whether this value changed suddenly or slowly.",
            "Restore the light and the focus. If the pictures will stay as they are now, let people review a few hundred of them, and "
            "train a version on them.",
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
            "A part has waited in the review queue for longer than `review.overdue_hours`.",
            "Castings wait for a person's decision. The next training run cannot use these parts, although they would improve the "
            "networks most.",
            "Open the Review page of the station. See how many parts wait, and why. Check whether parts wait for a second opinion "
            "although there is only one reviewer.",
            "Review the parts. The page shows the most useful parts first. If too many parts wait, raise `review.least_doubt` or lower "
            "`review.audit_share`.\n\n"
            "If there is only one reviewer, set `review.second_opinion = false`.",
        ),
    ),
    Alert(
        "GoldenPartWrong",
        "max by (plant, line) (castline_golden_parts_wrong) > 0",
        "1m",
        "critical",
        "{{ $labels.line }}: golden parts with a wrong verdict: {{ $value }}",
        PAGE.uid,
        GOLDEN_PARTS,
        Runbook(
            "The newest verdict on a golden part is not the right one. A golden part is a part of which people know the right verdict.",
            "The line may judge other parts wrongly, too: defective castings may pass, or good ones may be rejected.",
            "In the station, open the line's page of golden parts, which names the part, the verdict and the model version. Compare the "
            "newest picture of the part with an earlier picture.",
            "Restore light, focus and position of the camera, and put the golden part on the belt again. If the model version was "
            "changed, roll back with `castline models roll-back`.\n\nThe alert ends when the golden part gets the right verdict. It also "
            "ends when somebody retires the golden part on the line's page of golden parts.",
        ),
    ),
    Alert(
        "GoldenPartMissing",
        "max by (plant, line) (castline_golden_parts_missing) > 0",
        "10m",
        "warning",
        "{{ $labels.line }}: golden parts that were not shown in the last shift: {{ $value }}",
        PAGE.uid,
        GOLDEN_PARTS,
        Runbook(
            "A shift of the line has ended, and at least one golden part got no verdict in this shift.",
            "Nobody knows whether the line judged correctly in this shift.",
            "In the station, open the line's page of golden parts. The page names the golden parts that were not shown.",
            "Put the golden parts on the belt at the beginning of each shift. On the line's page of golden parts, enter the part id that "
            "each golden part got.\n\nIf a golden part is lost, retire it on the line's page of golden parts.",
        ),
    ),
)
