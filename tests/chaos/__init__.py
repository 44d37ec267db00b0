"""Real processes under faults: fifteen nodes, independent writers, nothing acknowledged is lost.

`python -m tests.chaos --minutes 3 --seed 7` prints what was acknowledged, what was lost and how
often each load was written and each fault fired; one that never was fails the run. The same seed
plans the same faults; when they meet what is under way, no two runs are alike.

Loads: `home`, registrations, visits and amendments in a village and its township; `away`, the same
about people of a sister village or of another township, which go to their home by sealed letter;
`move`, residents who get another home, some of them twice; `edit_by_old_home`, what a home writes
about who somebody is while he is being moved away.

Faults: `plan.py` lists them. Stores are put back on SQLite and on MariaDB (`restores.py`). With
`--reparent` a township goes to the other county once in a run (`reparent.py`); not by default,
because letters that the change delays are sent again after minutes (node/transit/DESIGN.md). Such a
township has no restored node, and nobody moves away from it: a grant that is on its way at the
change is judged under the hierarchy in force, and may have to be asked for again
(node/region/DESIGN.md).

At the end (`drain.py`, `verify.py`): every row is at its home, at all nodes above it but the city,
and at its author; every letter has its home's receipt; each resident who moved has one home, that
of his newest home epoch, and no node that is neither above it nor an author holds anything of him;
an edit that came too late is a proposal at the new home; parent and child hold the same.

Forgiven (`restores.py`, `expected.py`) is what a restored node alone had: versions that no other
node held at that moment, and with them a registration that had not left the village. What others
wrote about such a resident stays with its authors, and their letters without a receipt. And a
restored author may miss his copy of what he wrote for another home.
"""
