"""Uninformed Students: ensembles of students imitate a teacher's description of every patch; they err where all was not seen."""

from andon.detectors.uninformed_students.detector import UninformedStudents, UninformedStudentsConfig

__all__ = ["UninformedStudents", "UninformedStudentsConfig"]
