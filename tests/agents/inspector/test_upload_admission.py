"""Uploaded pictures wait for their own decoder only, keep their order, and none is lost when the inspector stops."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest

from agents.inspector.upload_admission import UploadAdmission

pytestmark = pytest.mark.asyncio


async def start(admitted: list[str], capacity: int = 8) -> tuple[UploadAdmission[str], asyncio.Task[None]]:
    async def admit(item: str, _: float | None) -> None:
        admitted.append(item)

    admission: UploadAdmission[str] = UploadAdmission(admit, capacity)
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
