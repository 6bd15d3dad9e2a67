"""Export of the history as CSV for spreadsheets and as Parquet for analysts."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pyarrow.parquet as pq
import pytest
from django.http import HttpRequest, StreamingHttpResponse
from django.test import Client, RequestFactory

from station.account_limits import AccountLimitMiddleware
from station.accounts.models import AuditEntry
from station.history.export import COLUMNS, export_csv, export_parquet, format_csv_cell
from station.history.filters import read_filters
from tests.station.conftest import EARLIEST, MakeAccount, MakePart


def download(client: Client, url: str) -> bytes:
    answer = client.get(url)
    assert answer.status_code == 200
    return b"".join(answer.streaming_content)  # type: ignore[attr-defined]


def test_csv_has_the_filtered_parts_newest_first(operator: Client, part: MakePart) -> None:
    for _ in range(3):
        part()
    part(line="line-2")
    rows = list(csv.DictReader(io.StringIO(download(operator, "/history/export.csv?line=line-1").decode())))
    assert [row["id"] for row in rows] == ["line-1:7:3", "line-1:7:2", "line-1:7:1"]
    assert json.loads(rows[0]["votes"]) == {"alexnet": 0.01, "lenet": 0.03}
    assert rows[0]["captured_at"] == "2026-11-22T06:00:03.000000Z"


def test_parquet_has_the_same_parts_with_types(operator: Client, part: MakePart) -> None:
    for _ in range(3):
        part()
    part(label="", defect_probability=None, decided_at=None)
    table = pq.read_table(io.BytesIO(download(operator, "/history/export.parquet")))
    assert table.column_names == [column.name for column in COLUMNS]
    assert table["id"].to_pylist() == ["line-1:7:4", "line-1:7:3", "line-1:7:2", "line-1:7:1"]
    assert table["defect_probability"].to_pylist() == [None, 0.02, 0.02, 0.02]
    assert table["seen_at"].to_pylist()[3] == EARLIEST + timedelta(seconds=1)


def test_an_account_can_have_two_downloads_at_once_until_they_are_closed(operator: Client, part: MakePart) -> None:
    part()
    before = AuditEntry.objects.count()
    first, _second = (operator.get(f"/history/export.{suffix}") for suffix in ("csv", "parquet"))
    refused = operator.get("/history/export.csv")
    assert (first.status_code, refused.status_code) == (200, 503)
    assert "2 downloads at once" in refused.content.decode()
    assert AuditEntry.objects.count() == before + 2
    assert operator.get("/history/").status_code == 200
    assert b"".join(first.streaming_content)  # type: ignore[attr-defined]  # reading to the end closes the response
    assert download(operator, "/history/export.csv")


def test_a_download_whose_client_left_before_it_began_does_not_count(account: MakeAccount) -> None:
    def answer(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(iter([b"x"]))

    middleware = AccountLimitMiddleware(answer)  # type: ignore[arg-type]
    request = RequestFactory().get("/")
    request.user = account("anna", "operator")
    for _ in range(30):
        assert middleware(request).status_code == 200
    held = [middleware(request) for _ in range(24)]
    assert middleware(request).status_code == 503
    held[0].close()
    assert middleware(request).status_code == 200


def test_a_head_request_reads_no_part(operator: Client, part: MakePart) -> None:
    part()
    assert list(operator.head("/history/export.csv").streaming_content) == []  # type: ignore[attr-defined]


def test_an_empty_history_is_an_empty_file(operator: Client) -> None:
    assert len(download(operator, "/history/export.csv").splitlines()) == 1
    assert pq.read_table(io.BytesIO(download(operator, "/history/export.parquet"))).num_rows == 0


def test_files_are_written_in_pieces(part: MakePart) -> None:
    for _ in range(7):
        part()
    assert [piece.count(b"\n") for piece in export_csv(read_filters({}), rows_per_query=2)] == [3, 2, 2, 1, 0]
    pieces = list(export_parquet(read_filters({}), rows_per_query=2, rows_per_group=2))
    assert len(pieces) == 4
    assert pq.ParquetFile(io.BytesIO(b"".join(pieces))).metadata.num_row_groups == 4


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert format_csv_cell(text) == "'" + text


def test_negative_numbers_get_no_apostrophe() -> None:
    assert format_csv_cell(-0.5) == "-0.5"
    assert format_csv_cell(None) == ""


def test_a_name_that_is_a_formula_is_written_as_text(operator: Client, part: MakePart) -> None:
    part(reviewer='=HYPERLINK("http://evil")', review_label="ok")
    rows = list(csv.DictReader(io.StringIO(download(operator, "/history/export.csv").decode())))
    assert rows[0]["reviewer"].startswith("'=")


def test_an_unreadable_filter_exports_nothing(operator: Client, part: MakePart) -> None:
    part()
    answer = operator.get("/history/export.csv?least=many")
    assert answer.status_code == 400
    assert b"Probability must be a number from 0 to 1" in answer.content
