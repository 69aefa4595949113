"""What a head answered image by image: kept for one head of a run, written once, read by pictures and people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attentive_probes.foreign_files import foreign
from attentive_probes.writing import whole_file

COLUMNS = {"row": pa.int64(), "label": pa.string(), "predicted": pa.string(), "probability": pa.float32()}


@dataclass(frozen=True)
class ImageRecords:
    """What a head answered about N images; all `(N,)`.

    Args:
        rows: Identities of the images: numbers of the rows of a held split.
        labels: Class ids.
        answers: Class ids.
        confidence: Probabilities of the answers.
        probabilities: Of all classes `(N, C)`, where they were kept.
    """

    rows: np.ndarray
    labels: np.ndarray
    answers: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray | None = None

    def save(self, path: Path, names: Mapping[int, str], rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Write them as Parquet: row, label, predicted, probability.

        Args:
            path: File to write.
            names: Class id -> name.
            rows: Where the images of the split lie in its file, if that is known.

        Raises:
            OSError: If it cannot be written.
        """
        places = self.rows if rows is None else np.asarray(rows)[self.rows]
        texts = [[names[i] for i in ids.tolist()] for ids in (self.labels, self.answers)]
        table = pa.table(
            dict(zip(COLUMNS, [places, *texts, self.confidence.astype(np.float32)], strict=True)), pa.schema(COLUMNS)
        )
        with whole_file(path) as partial:
            pq.write_table(table, partial)


def read_records(path: Path) -> pa.Table:
    """The columns `row`, `label`, `predicted`, `probability` that `ImageRecords.save` wrote.

    Raises:
        ValueError: If the file holds anything else.
    """
    with foreign(path, "the answers of a probe"):
        table = pq.read_table(path, columns=list(COLUMNS))
        if table.schema.remove_metadata() != pa.schema(COLUMNS):
            raise ValueError(f"the columns are {table.schema.names} of the types {table.schema.types}")
    return table
