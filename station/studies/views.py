"""The pages of agreement studies: the list, the page on which a person labels one part after the other, and the results."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from station.accounts.access import right_required
from station.configuration import PICTURE_POLICY, current_settings
from station.kafka_producer import KafkaUnavailableError
from station.pictures.part_picture_reader import describe_refusal, get_picture_reader
from station.studies.appraisal import AnswerRefusedError, count_answers, find_task, store_answer, take_back_answer
from station.studies.creation import (
    MAX_PARTS,
    MAX_ROUNDS,
    MIN_PARTS,
    MIN_ROUNDS,
    StudyPlan,
    StudyRefusedError,
    close_study,
    make_study,
    parse_people,
)
from station.studies.models import Study
from station.studies.study_report import compute_report, is_open_for_results
from streams.errors import CastlineError, PictureError


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("review")
def show_studies(request: HttpRequest) -> HttpResponse:
    """Lists the studies. A POST request makes a new study, which only an account with the right "make studies" is allowed to do."""
    if request.method == "POST":
        return _make_study(request)
    return _render_list(request)


@right_required("make studies")
def _make_study(request: HttpRequest) -> HttpResponse:
    fields = request.POST
    try:
        plan = StudyPlan(
            name=fields.get("name", "").strip(),
            line=fields.get("line", ""),
            people=parse_people(fields.get("people", "")),
            rounds=_parse_count(fields.get("rounds", ""), "Rounds"),
            count=_parse_count(fields.get("count", ""), "Number of parts"),
        )
        study = make_study(plan, _get_user(request), timezone.now())
    except CastlineError as error:
        return _render_list(request, str(error))
    messages.success(request, f"The study {study.name} is made. Its people find it on this page.")
    return redirect("study", study.name)


def _parse_count(text: str, label: str) -> int:
    if not text.strip().isdecimal() or len(text) > 6:
        raise StudyRefusedError(f"{label}: {text[:20]!r} is not a whole number. Enter a number.")
    return int(text)


def _render_list(request: HttpRequest, problem: str = "") -> HttpResponse:
    user = _get_user(request)
    rows = []
    for study in Study.objects.prefetch_related("people")[:200]:
        counts, total = count_answers(study), study.rounds * study.parts.count()
        rows.append((study, counts.get(user.username), sum(counts.values()), total, total * len(counts)))
    context = {
        "rows": rows,
        "problem": problem,
        "lines": [line.name for line in current_settings().lines if line.name != current_settings().station.upload_line],
        "entered": request.POST,
        "limits": {"min_parts": MIN_PARTS, "max_parts": MAX_PARTS, "min_rounds": MIN_ROUNDS, "max_rounds": MAX_ROUNDS},
    }
    return render(request, "station/studies/studies.html", context, status=409 if problem else 200)


@require_safe
@right_required("review")
def show_study(request: HttpRequest, name: str) -> HttpResponse:
    """Shows the progress of a study. Also shows the results if the study is complete or closed."""
    study = _find_study(name)
    counts, total = count_answers(study), study.rounds * study.parts.count()
    context = {
        "study": study,
        "counts": counts.items(),
        "total": total,
        "is_member": request.user.get_username() in counts,
        "is_done": counts.get(request.user.get_username(), 0) >= total,
        "report": compute_report(study) if is_open_for_results(study) else None,
    }
    return render(request, "station/studies/study.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("review")
def answer(request: HttpRequest, name: str) -> HttpResponse:
    """Shows the part that the person has to label. A POST request stores the answer and shows the next part."""
    study, user = _find_study(name), _get_user(request)
    _check_member(study, user)
    if request.method == "POST":
        number, in_round = (_read_number(request, field) for field in ("number", "round"))
        try:
            store_answer(study, user, number, in_round, request.POST.get("label", ""), timezone.now())
        except AnswerRefusedError as error:
            messages.error(request, str(error))
        return redirect("study-answer", study.name)
    task = find_task(study, user)
    if task is None or study.closed_at:
        return redirect("study", study.name)
    response = render(request, "station/studies/answer.html", {"study": study, "task": task})
    # Without the header Cache-Control, the browser's Back button would show an earlier part again.
    response["Cache-Control"] = "no-store"
    return response


@require_safe
@right_required("review")
def send_picture(request: HttpRequest, name: str) -> HttpResponse:
    """Sends the picture of the part that the person has to label. The URL has no part id, so that nobody recognises the part by its id."""
    study, user = _find_study(name), _get_user(request)
    _check_member(study, user)
    task = find_task(study, user)
    if task is None:
        raise Http404
    try:
        picture = get_picture_reader().read_for_browser(task.part, account=user.pk)
    except (PictureError, KafkaUnavailableError) as error:
        status, headers = describe_refusal(error)
        return HttpResponse(str(error), status=status, headers=headers, content_type="text/plain; charset=utf-8")
    if picture is None:
        raise Http404
    response = HttpResponse(picture.value, content_type=picture.content_type)
    response["Cache-Control"] = "no-store"
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = PICTURE_POLICY
    return response


@require_POST
@right_required("review")
def take_back(request: HttpRequest, name: str) -> HttpResponse:
    """Deletes the person's last answer in a study, so that the person labels this part again."""
    study, user = _find_study(name), _get_user(request)
    _check_member(study, user)
    try:
        take_back_answer(study, user)
    except AnswerRefusedError as error:
        messages.error(request, str(error))
    return redirect("study-answer", study.name)


@require_POST
@right_required("make studies")
def close(request: HttpRequest, name: str) -> HttpResponse:
    """Closes a study, so that it takes no more answers and shows its results."""
    study = _find_study(name)
    try:
        close_study(study, _get_user(request), timezone.now())
    except StudyRefusedError as error:
        messages.error(request, str(error))
    return redirect("study", study.name)


def _find_study(name: str) -> Study:
    return get_object_or_404(Study, name=name)


def _check_member(study: Study, user: User) -> None:
    if not study.people.filter(pk=user.pk).exists():
        raise Http404


def _read_number(request: HttpRequest, field: str) -> int:
    text = request.POST.get(field, "")
    return int(text) if text.isdecimal() and len(text) < 7 else -1


def _get_user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user
