"""Every forgery of a sealed log is found, and receipts verify with a verifier of their own."""

from __future__ import annotations

from pathlib import Path

from .forgery import FORGERIES, forge


def test_every_forgery_is_found_and_every_receipt_verifies(
    postgres_server_url: str, tmp_path: Path
) -> None:
    report = forge(postgres_server_url, tmp_path, n_events=8, n_receipts=40, seed=20260101)
    assert {report.tried[name] for name in FORGERIES} == {8}
    assert report.n_receipts == 40
    assert report.holds, str(report)
