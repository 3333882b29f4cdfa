"""Golden parts: known parts that show whether a station still sees what it has to see.

A set of known bad, known good and borderline parts is judged again when a check is due: at the start of a shift, after a
change of the product, the model or the thresholds, after a stop because of camera or light, after a restart. While a check is
due the station calls a person; when it is overdue or has failed, no part is OK. Food and pharmacy call this a challenge test.
"""
