"""Uninformed Students: the regression error and the disagreement of student ensembles that imitate a patch teacher."""

from andon.detectors.uninformed_students.detector import UninformedStudents
from andon.detectors.uninformed_students.settings import UninformedStudentsConfig

__all__ = ["UninformedStudents", "UninformedStudentsConfig"]
