"""Quality: are the models still right?"""

from __future__ import annotations

from dashboards.panels import Page, Query, number, rising, trend
from dashboards.queries import LINE, PLANT, quantile, rate

_SURE = "castline_defect_probability"

PAGE = Page(
    "castline-quality",
    "Castline: quality",
    "Are the models still right? No label is known here: what is watched is whether pictures and verdicts are still what they were.",
    (
        number(
            "Which version judges?",
            Query(f"sum by (line, model, runtime) (castline_model_info{{{LINE}}})", "{{line}}: {{model}} on {{runtime}}"),
            Query(f"sum by (line, model, runtime) (castline_model_shadow_info{{{LINE}}})", "{{line}}: {{model}} on {{runtime}}, shadow"),
            unit="short",
            why="Inspectors that serve each version. More than one version for long is a rollout that did not end.",
            steps=((None, "blue"),),
            alerts=("ModelVersionsDiffer",),
            width=12,
        ),
        number(
            "How much is left to people?",
            f"line:castline_review_verdicts:ratio_rate1h{{{LINE}}}",
            unit="percentunit",
            why="Share of the verdict `review` over the last hour; above 5 % people cannot keep up.",
            steps=rising(0.05, 0.15),
            alerts=("ReviewShareHigh",),
            width=12,
        ),
        trend(
            "Are there more defects than usual?",
            Query(f"line:castline_defect_verdicts:ratio_rate1h{{{LINE}}}", "{{line}} last hour"),
            Query(f"line:castline_defect_verdicts:ratio_rate1d{{{LINE}}}", "{{line}} last day"),
            unit="percentunit",
            why="Hour against day: ten points apart, either castings or pictures have changed.",
            alerts=("VerdictsDrift",),
        ),
        trend(
            "How often do the two networks disagree?",
            Query(f"line:castline_vote_disagreements:ratio_rate1h{{{LINE}}}", "{{line}} last hour"),
            Query(rate("castline_vote_disagreements_total") + " / " + rate("castline_verdicts_total"), "{{line}} now"),
            unit="percentunit",
            why="They learnt the same from different sides; on pictures unlike those they drift apart first.",
            steps=rising(0.05, 0.1),
            alerts=("NetworksDisagree",),
        ),
        trend(
            "How sure are the verdicts?",
            Query(quantile(0.1, _SURE), "{{line}} 10 %"),
            Query(quantile(0.5, _SURE), "{{line}} half"),
            Query(quantile(0.9, _SURE), "{{line}} 90 %"),
            unit="percentunit",
            why="Calibrated probability of a defect. Healthy: low and high, little between. Towards the middle: doubt grows.",
        ),
        trend(
            "How many pictures lie in the middle?",
            Query(
                f'1 - (sum by (line) (rate({_SURE}_bucket{{{LINE},le=~"0.2|0.20"}}[$__rate_interval])) '
                f'+ sum by (line) (rate({_SURE}_bucket{{{LINE},le="+Inf"}}[$__rate_interval])) '
                f'- sum by (line) (rate({_SURE}_bucket{{{LINE},le="0.8"}}[$__rate_interval]))) '
                f"/ sum by (line) (rate({_SURE}_count{{{LINE}}}[$__rate_interval]))",
                "{{line}}",
            ),
            unit="percentunit",
            why="Share with a probability between 0.2 and 0.8, where a small change of light changes the verdict.",
            steps=rising(0.1, 0.3),
        ),
        trend(
            "Why is a part left to a person?",
            Query(rate("castline_reviews_total", "line, reason"), "{{line}} {{reason}}"),
            unit="cps",
            why="Doubt is the model's, the other reasons are the picture's.",
            alerts=("ReviewShareHigh",),
        ),
        trend(
            "Does anybody review?",
            Query(f"max by (state) (castline_review_queue_parts{{{PLANT}}})", "{{state}} opinion, parts"),
            Query(f"max(castline_review_queue_oldest_seconds{{{PLANT}}}) / 3600", "h that the oldest waits"),
            Query(f"max(castline_review_overdue_seconds{{{PLANT}}}) / 3600", "h that it may"),
            unit="short",
            why="Parts that wait for a person, and how long the oldest has. `open`: nobody has looked at it yet.",
            alerts=("ReviewQueueOverdue",),
        ),
        trend(
            "What comes out, by version?",
            Query(rate("castline_verdicts_total", "model, label"), "{{model}} {{label}}"),
            unit="cps",
            why="Before and after a switch of versions, side by side.",
        ),
        trend(
            "Is a camera in trouble?",
            Query(
                f'max by (line, state) (castline_camera_state{{{LINE},state!="gap"}}) > 0 '
                f'or min by (line, state) (castline_camera_state{{{LINE},state="gap"}}) > 0',
                "{{line}} {{state}}",
            ),
            unit="short",
            why="Frozen, dark, bright, blurred, or broken off: nothing here means that all cameras are well.",
            steps=rising(0.5, 1),
            alerts=("CameraFrozen", "CameraDarkOrBright", "CameraBlurred", "CameraGap"),
        ),
        trend(
            "Are pictures and answers what the version was made for?",
            Query(f"max by (line, of) (castline_drift_psi{{{LINE}}})", "{{line}} {{of}}"),
            unit="short",
            why="Stability index of the last 500 pictures against the version's reference: below 0.1 alike, above 0.25 others.",
            steps=rising(0.1, 0.25),
            alerts=("PicturesDrift",),
        ),
        trend(
            "Are suspicious pictures explained?",
            Query(rate("castline_findings_total"), "{{line}} heat maps a second"),
            Query(rate("castline_findings_dropped_total"), "{{line}} no time for"),
            Query(rate("castline_findings_failed_total"), "{{line}} failed"),
            unit="cps",
            why="Heat maps are made in idle time alone; without any, inspection has no time to spare, or the version no AlexNet.",
        ),
        trend(
            "How long after its verdict comes a heat map?",
            Query(quantile(0.5, "castline_finding_seconds", "plant", scope=PLANT), "{{plant}} half"),
            Query(quantile(0.95, "castline_finding_seconds", "plant", scope=PLANT), "{{plant}} 95 %"),
            unit="s",
            why="A person who uploads a picture waits for it.",
        ),
        trend(
            "Would the shadow version judge otherwise?",
            Query(
                f"{rate('castline_shadow_disagreements_total', 'line, model')} / {rate('castline_shadow_judged_total', 'line, model')}",
                "{{line}} {{model}}",
            ),
            Query(rate("castline_shadow_dropped_total"), "{{line}} pictures a second it had no time for"),
            unit="percentunit",
            why="Share of pictures with another label. Look at them before the shadow is put in force; dropped ones are not in the share.",
            steps=rising(0.02, 0.1),
        ),
        trend(
            "Was a chosen version refused?",
            Query(rate("castline_model_refused_total", "line, reason"), "{{line}} {{reason}}"),
            Query(
                f'max by (instance_name) (castline_model_open_seconds_sum{{{PLANT},role="inspector"}})',
                "{{instance_name}} s to open its versions",
            ),
            unit="short",
            why="A refused version stays out and the one in force goes on.",
            steps=rising(0.0001, 1),
            alerts=("ModelRefused",),
        ),
    ),
    span="now-24h",
)
