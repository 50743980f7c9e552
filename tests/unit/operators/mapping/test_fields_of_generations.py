"""File names from the fields of a generation that is mapped over."""

from __future__ import annotations

from airflow_provider_vidu.operators.mapping.shared_names import is_shared
from tests.rows import each_row


@each_row(
    ("field", "shared"),
    [("id", False), ("generation_id", False), ("prompt", None), ("model", None), ("status", None), ("credits", None)],
)
def test_a_field_that_several_generations_may_share_is_warned_of(field, shared):
    """All clips of one model, or of one prompt with several seeds, would be stored as one file."""
    for template in (
        f'/clips/{{{{ task.generation["{field}"] }}}}.mp4',
        f"/clips/{{{{ ti.task.generation.{field} }}}}.mp4",
    ):
        assert is_shared(template, {"generation"}) is shared


def test_a_shared_field_beside_the_index_is_no_matter():
    """The index alone tells the instances apart."""
    assert is_shared('/clips/{{ ti.map_index }}-{{ task.generation["model"] }}.mp4', {"generation"}) is False
