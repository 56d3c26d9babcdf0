"""Add days to a date of the Gregorian calendar.

## Description
The prompt is an ISO 8601 date, `+`, a number of days from 1 to `max_days`, and `=`; the response is the date so many
days later, in the same form. Months have their true lengths, and leap years are those divisible by 4 but not by 100,
or by 400: `2100-02-28+1=` -> `2100-03-01`, `2000-02-28+1=` -> `2000-02-29`.

## Action Space
`Discrete(14)`: the digits, `-`, `+`, `=`, and the end token.

## Observation Space
The prompt and the response so far; see `textenvs.env.TextGenEnv`.

## Starting State
Dates from 1 January of `first_year` to 31 December of `last_year` and numbers of days, in a fixed shuffled order.

## Rewards
1 for exactly the reference, else 0. There is no partial credit, because the prompt's own date shares most of its
characters with the answer.

## Episode End
The end token, or the 11th token.

## Splits
The last fifth of the shuffled questions is held out.

## References
The task "date understanding" of BIG-bench (Srivastava et al., TMLR 2023), in a form with one answer; RL4LMs' toy of
"sentences with dates".

## Version History
v0: first version.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

from textenvs.string_task import StringTask
from textenvs.task import int_in

#: A date may come out later than the last year: by 99,999 days, at most 274 years.
LAST_YEAR = 9_700


class Dates(StringTask):
    """Add days to a date: `2024-02-27+3=` -> `2024-03-01`.

    Args:
        first_year: 1,000 to 9,700.
        last_year: the same, not before the first.
        max_days: most days to add, 1 to 99,999.
        split: "train", "heldout" or "all".
    """

    reward = "exact_match"

    def __init__(
        self, *, first_year: int = 2000, last_year: int = 2099, max_days: int = 99, split: str = "train"
    ) -> None:
        first_year = int_in("first_year", first_year, 1_000, LAST_YEAR)
        last_year = int_in("last_year", last_year, first_year, LAST_YEAR)
        self.max_days = int_in("max_days", max_days, 1, 99_999)
        self.first = date(first_year, 1, 1)
        self.num_dates = (date(last_year, 12, 31) - self.first).days + 1
        super().__init__(
            symbols="0123456789-+", max_input_tokens=11 + len(str(self.max_days)), max_new_tokens=11, split=split
        )

    def num_inputs(self) -> int:
        """See `StringTask.num_inputs`."""
        return self.num_dates * self.max_days

    def input(self, number: int) -> str:
        """A date and a number of days."""
        days, offset = divmod(number, self.num_dates)
        return f"{self.first + timedelta(offset)}+{days + 1}"

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        read = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)\+([1-9]\d{0,4})", text, flags=re.ASCII)
        try:
            if read is None:
                raise ValueError("not of that form")
            year, month, day, days = map(int, read.groups())
            return str(date(year, month, day) + timedelta(days))
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"input must be a date such as 2024-02-27, '+' and 1 to 99999 days, got {text[:80]!r}: {error}"
            ) from None
