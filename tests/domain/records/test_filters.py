"""The conditions of a query: what they keep of what a user gives."""

from __future__ import annotations

from dataclasses import fields

import pytest

from recordledger.domain.records.filters import CONDITIONS, IDS_MAX, RecordFilter


def test_each_field_of_the_filter_is_a_condition() -> None:
    assert list(CONDITIONS) == [each.name for each in fields(RecordFilter)]


def test_a_condition_of_several_values_keeps_each_of_them_as_records_have_it() -> None:
    assert CONDITIONS["tag"].kept(["GPU", "big"]) == ("gpu", "big")
    assert CONDITIONS["owner"].kept(["user:Ann"]) == ("user:Ann",)
    assert CONDITIONS["ids"].kept(iter([3, 1])) == (3, 1)


def test_a_condition_of_one_value_keeps_it_as_it_is() -> None:
    assert CONDITIONS["dataset"].kept("Water") == "Water"


@pytest.mark.parametrize(
    ("name", "values_max"), [("ids", IDS_MAX), ("tag", 100), ("created_after", None)]
)
def test_a_condition_bounds_how_many_values_there_may_be(name: str, values_max: int | None) -> None:
    assert CONDITIONS[name].values_max == values_max
    assert CONDITIONS[name].is_list == (values_max is not None)
