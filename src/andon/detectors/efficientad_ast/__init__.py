"""EfficientAD-AST: student and autoencoder of EfficientAD, taught by the normalizing flow of AST."""

from andon.detectors.efficientad_ast.variants import EfficientADASTVariants, VariantsConfig

__all__ = ["EfficientADASTVariants", "VariantsConfig"]
