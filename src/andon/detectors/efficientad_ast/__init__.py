"""EfficientAD-AST: student and autoencoder of EfficientAD, taught by the normalizing flow of AST."""

from andon.detectors.efficientad_ast.detector import EfficientADAST
from andon.detectors.efficientad_ast.settings import EfficientADASTConfig

__all__ = ["EfficientADAST", "EfficientADASTConfig"]
