"""How long what has ended is kept."""

from dataclasses import dataclass
from typing import Final

from core.contract.model import Model

HOUR_SECONDS: Final = 3600.0

UPLOADS_HOURS: Final = 24.0
"""How long an unfinished upload that can be resumed is kept after its last bytes, unless an operator sets it."""


@dataclass(frozen=True)
class Retention:
    """How long after a task's end its output is kept, or, if it failed, its input, and how long the task itself, and
    whatever is left of it.
    """

    inputs_hours: float
    outputs_hours: float
    tasks_hours: float

    def of(self, model: Model) -> "Retention":
        """The model's own, where its operator set one."""
        outputs, tasks = model.keep_outputs_hours, model.keep_tasks_hours
        return Retention(
            self.inputs_hours,
            self.outputs_hours if outputs is None else outputs,
            self.tasks_hours if tasks is None else tasks,
        )

    def is_input_due(self, age_seconds: float) -> bool:
        return age_seconds >= self.inputs_hours * HOUR_SECONDS

    def is_output_due(self, age_seconds: float) -> bool:
        return age_seconds >= self.outputs_hours * HOUR_SECONDS

    def is_task_due(self, age_seconds: float) -> bool:
        return age_seconds >= self.tasks_hours * HOUR_SECONDS

    def next_seconds(self, age_seconds: float) -> float:
        """Until something of a task that ended so long ago is due."""
        all_hours = (self.inputs_hours, self.outputs_hours, self.tasks_hours)
        left = [hours * HOUR_SECONDS - age_seconds for hours in all_hours]
        return min((seconds for seconds in left if seconds >= 0), default=0.0)
