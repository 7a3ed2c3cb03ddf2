"""Numbers that follow the frame counter, and the bounds of some."""

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator
from pydantic_core import PydanticCustomError

from slm_lab.spec.basics import Natural, Real, SpecModel, wrong


class ScheduleSpec(SpecModel):
    """A number that follows the frame counter (functional/schedules.py)."""

    name: Literal["no_decay", "linear_decay", "rate_decay", "periodic_decay"]
    start_val: Real
    """Value until start_step."""
    end_val: Real | None = None
    """Value from end_step on; also in enjoy and evaluation. May be above or below start_val, 0 included."""
    start_step: Natural = 0
    """Frame at which the change begins."""
    end_step: Natural | None = None
    """Frame at which it ends."""

    @property
    def parts(self) -> tuple[str, float, float | None, int, int | None]:
        """Name, start_val, end_val, start_step, end_step: as `functional.schedules.at_frame` takes them."""
        return self.name, self.start_val, self.end_val, self.start_step, self.end_step

    @model_validator(mode="after")
    def _ends_stated(self) -> Self:
        if self.name != "no_decay":
            for key in ("end_val", "end_step"):
                if getattr(self, key) is None:
                    raise PydanticCustomError("schedule", f"{self.name} needs '{key}'")
            if self.end_step is not None and self.end_step <= self.start_step:
                raise PydanticCustomError("schedule", "end_step must be after start_step")
        return self


def _within(low: float, high: float, rule: str) -> AfterValidator:
    def check(schedule: ScheduleSpec) -> ScheduleSpec:
        for key in ("start_val", "end_val"):
            value = getattr(schedule, key)
            if value is not None and not low <= value <= high:
                raise wrong(key, value, rule)
        return schedule

    return AfterValidator(check)


NonNegativeSchedule = Annotated[ScheduleSpec, _within(0, math.inf, "must be at least 0")]
"""Of a coefficient, a temperature, a distance."""
UnitSchedule = Annotated[ScheduleSpec, _within(0, 1, "must be between 0 and 1")]
"""Of a share or an exponent."""
