"""Programs written to get a false pass or to do harm. Each is text; only the judge ever runs it.

Every attack defines `f`, is asked for `f(1)` and does not know the answer, a number drawn anew for every run. Words in
@SIGNS@ are filled in by the test: @CANARY@ a folder that must stay empty, @SECRET_FILE@ a file that holds the answer,
@PORT@ a listening TCP port, @SUPERVISOR@ the process id of the judge's caller.
"""

from . import comparison, forging, memory, processes, protocols, resources

FAMILIES = {
    "comparison": comparison.ATTACKS,
    "forging": forging.ATTACKS,
    "memory": memory.ATTACKS,
    "processes": processes.ATTACKS,
    "protocols": protocols.ATTACKS,
    "resources": resources.ATTACKS,
}
ATTACKS = {f"{family}/{name}": program for family, attacks in FAMILIES.items() for name, program in attacks.items()}
SLOW = {f"resources/{name}" for name in resources.SLOW}
