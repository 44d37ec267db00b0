"""Real processes under faults: fifteen nodes, independent writers, nothing acknowledged is lost.

`python -m tests.chaos --minutes 3 --seed 7` prints what was acknowledged, what was lost and how
often each fault fired. The same seed plans the same faults; when they meet what is under way, no
two runs are alike.
"""
