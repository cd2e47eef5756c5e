"""Is a hand-written gradient right? For anybody's loss: nothing here knows of networks.

`check.py` has the functions to call and derives what is judged; `referee.py` computes it, `rounding.py` says what
rounding explains, `causes.py` names likely causes, `report.py` holds what was found.
"""
