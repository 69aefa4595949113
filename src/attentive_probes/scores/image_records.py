"""What a head answered image by image: kept for one head of a run, written once, read by pictures and people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attentive_probes.files.untrusted import untrusted
from attentive_probes.files.writing import whole_file

if TYPE_CHECKING:
    import pyarrow as pa

# Column -> its type in Arrow. pyarrow is imported where files are: a probe that is only used needs none.
COLUMNS = {"row": "int64", "label": "string", "predicted": "string", "probability": "float32"}


@dataclass(frozen=True)
class ImageRecords:
    """What a head answered about N images; all `(N,)`.

    Args:
        rows: Identities of the images: numbers of the rows of a held split.
        labels: Class ids.
        predictions: Class ids.
        confidence: Probabilities of the predictions.
        probabilities: Of all classes `(N, C)`, where they were kept.
    """

    rows: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray | None = None

    def save(self, path: Path, names: Mapping[int, str], places: np.ndarray | None = None) -> None:
        """Write them as Parquet: row, label, predicted, probability.

        Args:
            path: File to write.
            names: Class id -> name.
            places: Where the images `(N,)` lie in the data that the user named; by default their identities.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = [[names[i] for i in ids.tolist()] for ids in (self.labels, self.predictions)]
        table = pa.table(
            dict(
                zip(
                    COLUMNS,
                    [self.rows if places is None else places, *texts, self.confidence.astype(np.float32)],
                    strict=True,
                )
            ),
            _schema(),
        )
        with whole_file(path) as partial:
            pq.write_table(table, partial)


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])


def read_records(path: Path) -> pa.Table:
    """The columns `row`, `label`, `predicted`, `probability` that `ImageRecords.save` wrote.

    Raises:
        ValueError: If the file holds anything else.
    """
    import pyarrow.parquet as pq

    with untrusted(path, "the predictions of a probe"):
        table = pq.read_table(path, columns=list(COLUMNS))
        if table.schema.remove_metadata() != _schema():
            raise ValueError(f"the columns are {table.schema.names} of the types {table.schema.types}")
    return table
