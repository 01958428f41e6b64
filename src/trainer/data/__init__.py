"""Data sets, their split into training rows and held-out rows, and the batches of every step."""

from trainer.data.arrays import Npy, Npz
from trainer.data.base import Data, split
from trainer.data.batches import Batch, Batches, Rows, Tensors
from trainer.data.datasets import Items
from trainer.data.made import IntegerTriples, Pair, Random, Target
from trainer.data.preprocess import Preprocess
from trainer.data.sets import Digits, Sklearn
from trainer.data.table_files import CSV, Parquet
from trainer.data.tables import Table

__all__ = [
    "CSV",
    "Batch",
    "Batches",
    "Data",
    "Digits",
    "IntegerTriples",
    "Items",
    "Npy",
    "Npz",
    "Pair",
    "Parquet",
    "Preprocess",
    "Random",
    "Rows",
    "Sklearn",
    "Table",
    "Target",
    "Tensors",
    "split",
]
