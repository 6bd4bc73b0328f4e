"""States, reasons and records."""

from datetime import UTC, datetime

import pytest

from core.contract import codec, errors, http
from core.contract.model import Limits, Model, ModelSpec
from core.contract.task import TRANSITIONS, UID, Blob, Failure, Reason, State, Task, new_uid


def test_version_1_numbers() -> None:
    """-1 pending, 2 running, 1 finished, 0 failed; and back."""
    assert {state: state.status for state in State} == {
        State.PENDING: -1,
        State.RUNNING: 2,
        State.FINISHED: 1,
        State.FAILED: 0,
    }
    assert [State.of_status(state.status) for state in State] == list(State)
    with pytest.raises(ValueError, match="one of"):
        State.of_status(3)


def test_every_state_has_its_transitions() -> None:
    """The ends are finished and failed, and every other state leads to both."""
    assert set(TRANSITIONS) == set(State)
    ends = {state for state in State if state.is_terminal}
    assert ends == {State.FINISHED, State.FAILED}
    assert all(ends <= TRANSITIONS[state] for state in set(State) - ends)


@pytest.mark.parametrize("reason", [Reason.EXIT_NONZERO, Reason.TIMEOUT, Reason.INPUT_INVALID, Reason.OUTPUT_INVALID])
def test_what_the_model_or_the_user_did_is_final(reason: Reason) -> None:
    """Trying again would fail again."""
    assert not reason.retries


def test_a_failure_can_be_told_whatever_its_words() -> None:
    """Half a character or a byte that is not UTF-8 doesn't keep an attempt from failing."""
    failure = Failure(reason=Reason.EXIT_NONZERO, message="r\udce9sultat é")
    assert failure.message == r"r\udce9sultat é"
    assert Failure.model_validate_json(failure.model_dump_json()) == failure


def test_records_survive_msgpack() -> None:
    """Datetimes stay aware, enums stay enums, absent stays absent; computed fields aren't stored."""
    task = Task(
        uid="u" * 43,
        model_human_readable_id="copy",
        datetime_created=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        output=Blob(id="b", size=2**40),
        state=State.FAILED,
        failure=Failure(reason=Reason.TIMEOUT, message="häufig", exit_code=None),
    )
    packed = codec.pack(task)
    assert codec.unpack(Task, packed) == task
    assert "status" not in codec.unpack_plain(packed)


def test_a_task_shows_version_1_its_fields() -> None:
    """Those that its consumers read, beside ours."""
    task = Task(uid="u", model_human_readable_id="copy", datetime_created=datetime.now(UTC), input=Blob(id="b", size=1))
    shown = task.model_dump()
    assert shown["status"] == -1
    assert shown["input_zip"] == "b"
    assert shown["output_zip"] is None
    assert shown["is_deleted"] is False
    assert Task.model_validate_json(task.model_dump_json()) == task


@pytest.mark.parametrize("uid", ["..", "a" * 43 + "/", "", "a b" * 10, "ü" * 43, "{x}" * 10])
def test_what_never_is_a_uid(uid: str) -> None:
    """It would become part of a path or a key."""
    assert not UID.fullmatch(uid)


@pytest.mark.parametrize(
    "reference",
    ["hello", "hello:latest", "registry.local:5000/group/name_x:1.2-3", "a/b/c@sha256:" + "0" * 64],
)
def test_image_references(reference: str) -> None:
    """What the engine takes."""
    assert ModelSpec(human_readable_id="m", container_tag=reference).container_tag == reference


@pytest.mark.parametrize("reference", ["", "Upper", "a b", "-v", "a:b:c", "a//b", "../x", "a;rm", "a\n", "a@sha256:0"])
def test_what_is_no_image_reference(reference: str) -> None:
    """It is refused when the model is registered, not when its first task runs."""
    with pytest.raises(ValueError, match="container_tag"):
        ModelSpec(human_readable_id="m", container_tag=reference)


@pytest.mark.parametrize("spelled", ["True", "true", "1", "on", "yes", "YES", "On"])
def test_booleans_as_clients_spell_them(spelled: str) -> None:
    """Any case, and words."""
    spec = ModelSpec.model_validate({"human_readable_id": "m", "container_tag": "c", "model_available": spelled})
    assert spec.model_available


def test_a_model_is_its_own_record() -> None:
    """Version 1's fields follow from ours."""
    spec, limits = ModelSpec(human_readable_id="m", container_tag="c"), Limits(memory_mb=512)
    model = Model(id=1, uid="u", zip=Blob(id="z", size=1), **spec.model_dump(), **limits.model_dump())
    assert codec.unpack(Model, codec.pack(model)) == model
    assert (model.model_zip, model.model_volume_id) == ("z", "inference-server-model-z")


def test_every_error_has_a_status() -> None:
    """One that is raised but not in the table would be a 500."""
    kinds = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ContractError)
    }
    assert kinds - {errors.ContractError} == set(http.STATUS)
    assert {550, 551, 552, 553, 554} <= set(http.STATUS.values())


def test_a_uid_is_no_option() -> None:
    """On a command line what begins with a hyphen would be one; of random ones each 64th would."""
    assert not any(new_uid().startswith("-") for _ in range(2000))
