"""Who watches the gate: planted faults, every one of which the suite must catch. `python -m tests.mutants`.

* `catalogue`, `schemes`, `written`: faults that change a grown model, watched (`watch`) by the laws of growth on the
  models of `subjects`;
* `rules`: the rule of every operator made wrong, watched by the oracle of rules on the cases of tests/rules/cases;
* `modules`, `certificates`, `gates`, `safeguards`: looks that are switched off, each watched by small programs of its
  own;
* `lies`, `ways`: how faults are planted;
* `run`: all of them, and the kill rate.
"""
