"""Uploaded pictures wait for their own decoder only, keep their order, and none is lost when the inspector stops."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest

from agents.inspector.upload_admission import UploadAdmission
from tests.event_loop import wait_until

pytestmark = pytest.mark.asyncio


async def start(admitted: list[str], capacity: int = 8) -> tuple[UploadAdmission[str], asyncio.Task[None]]:
    async def admit(item: str, _: float | None) -> None:
        admitted.append(item)

    admission: UploadAdmission[str] = UploadAdmission(admit, capacity, 2**20)
    return admission, asyncio.create_task(admission.run())


async def test_a_picture_goes_on_once_it_is_decoded_and_those_behind_it_after_it() -> None:
    admitted: list[str] = []
    admission, task = await start(admitted)
    slow, quick = Future[str](), Future[str]()
    await admission.put("slow", slow, None)
    await admission.put("quick", quick, None)
    await admission.put("without a part", None, None)
    quick.set_result("pixels")
    for _ in range(10):
        await asyncio.sleep(0)
    assert admitted == []
    slow.set_result("pixels")
    await admission.drain()
    assert admitted == ["slow", "quick", "without a part"]
    await task


async def test_a_picture_whose_decoder_failed_goes_on_with_its_error() -> None:
    admitted: list[str] = []
    admission, task = await start(admitted)
    failed = Future[str]()
    failed.set_exception(OSError("the store does not answer"))
    await admission.put("failed", failed, None)
    await admission.drain()
    assert admitted == ["failed"]
    await task


async def test_after_the_drain_no_picture_is_accepted() -> None:
    admitted: list[str] = []
    admission, task = await start(admitted)
    await admission.drain()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(admission.put("late", None, None), 0.05)
    assert admitted == []
    await task


async def test_an_upload_waits_until_no_picture_from_a_camera_waits() -> None:
    admitted: list[str] = []
    is_idle = False

    async def admit(item: str, _: float | None) -> None:
        admitted.append(item)

    admission: UploadAdmission[str] = UploadAdmission(admit, 8, 2**20, lambda: is_idle)
    task = asyncio.create_task(admission.run())
    decoded = Future[str]()
    decoded.set_result("pixels")
    await admission.put("upload", decoded, None)
    await asyncio.sleep(0.1)
    assert admitted == []
    is_idle = True
    await wait_until(lambda: admitted == ["upload"])
    is_idle = False
    await admission.put("upload on a busy machine", decoded, None)
    began_s = asyncio.get_running_loop().time()
    await wait_until(lambda: len(admitted) == 2)
    assert asyncio.get_running_loop().time() - began_s > 1.5
    await admission.drain()
    await task


async def test_too_many_waiting_uploads_end_the_present_decoding_and_the_waiting_for_spare_time() -> None:
    admitted: list[str] = []
    aborted: list[int] = []
    present = Future[str]()

    async def admit(item: str, _: float | None) -> None:
        admitted.append(item)

    def abort() -> None:
        aborted.append(1)
        if not present.done():
            present.set_exception(ValueError("killed"))

    admission: UploadAdmission[str] = UploadAdmission(admit, 8, 2**20, lambda: False, abort)
    task = asyncio.create_task(admission.run())
    await admission.put("present", present, None)
    await asyncio.sleep(0)
    refused = Future[str]()
    refused.set_exception(ValueError("refused"))
    for number in range(5):
        assert len(aborted) == 0
        await admission.put(f"upload {number}", refused, None)
    assert aborted
    await wait_until(lambda: len(admitted) >= 2 and not admission.is_crowded)
    await admission.put("large", refused, None, 2**20 + 1)
    assert admission.is_crowded
    await admission.drain()
    assert admitted == ["present", *(f"upload {number}" for number in range(5)), "large"]
    await task


async def test_an_upload_whose_wait_is_cancelled_does_not_count() -> None:
    async def admit(item: str, deadline_s: float | None) -> None: ...

    admission: UploadAdmission[str] = UploadAdmission(admit, 2, 100)
    for number in range(2):
        await admission.put(f"upload {number}", None, None)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(admission.put("cancelled by a rebalance", None, None, 101), 0.05)
    task = asyncio.create_task(admission.run())
    await admission.drain()
    assert not admission.is_crowded
    await task
