"""How long what has ended is kept."""

from dataclasses import dataclass
from typing import Final

from core.contract.model import Model

HOUR_SECONDS: Final = 3600.0


@dataclass(frozen=True)
class Retention:
    """How long after a task's end its output is kept, and how long the task itself, and whatever is left of it."""

    outputs_hours: float
    tasks_hours: float

    def of(self, model: Model) -> "Retention":
        """The model's own, where its operator set one."""
        outputs, tasks = model.keep_outputs_hours, model.keep_tasks_hours
        return Retention(
            self.outputs_hours if outputs is None else outputs, self.tasks_hours if tasks is None else tasks
        )

    def is_output_due(self, age_seconds: float) -> bool:
        return age_seconds >= self.outputs_hours * HOUR_SECONDS

    def is_task_due(self, age_seconds: float) -> bool:
        return age_seconds >= self.tasks_hours * HOUR_SECONDS

    def next_seconds(self, age_seconds: float) -> float:
        """Until something of a task that ended so long ago is due."""
        hours = self.tasks_hours if self.is_output_due(age_seconds) else min(self.outputs_hours, self.tasks_hours)
        return max(hours * HOUR_SECONDS - age_seconds, 0)
