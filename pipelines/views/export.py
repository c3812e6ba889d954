"""Laid-out examples as Parquet, for trainers that do not lay them out themselves."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glm_model.layout import Marks
from glm_model.tokenizer import Tokenizer
from infra import storage
from pipelines.blanks import draw
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.feed import examples
from pipelines.store.format import Split, TokenStore
from pipelines.token_classes import TokenClasses


def export(
    opened: TokenStore,
    split: Split,
    tokenizer: Tokenizer,
    config: BlanksConfig,
    url: str,
    *,
    epoch: int,
    rows: int | None = None,
) -> int:
    """Write a split's rows as the model is asked them in an epoch; returns how many.

    A column per array of `glm_model.layout.Example`, each a list<int32> of row_width values; a row per packed row, in
    the store's order. Memory: one row group.
    """
    mixture, token_classes, special = resolve(config), TokenClasses.of(tokenizer), tokenizer.special
    settings = opened.manifest["settings"]
    marks, width = Marks(special.sop, special.eop, special.pad), settings["row_width"]
    names = ("tokens", "targets", "position_ids", "block_position_ids", "loss_mask", "segment_ids", "context_end",
             "objective_ids")  # fmt: skip
    schema = pa.schema([(name, pa.list_(pa.int32(), width)) for name in names])
    left = split.rows if rows is None else min(rows, split.rows)
    written = left
    fs, path = storage.filesystem(url)
    with fs.open(path, "wb") as sink, pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for group in range(len(split.group_rows)):
            if left <= 0:
                break
            held = split.read_group(group)
            drawn, _ = draw.draw_rows(mixture, held, token_classes, seed=config.seed, epoch=epoch, width=width)
            length = settings["sequence_length"]
            batch = examples.lay_out(held, drawn, mixture, token_classes, width=width, marks=marks, length=length)
            take = min(left, len(batch.tokens))
            columns = [
                pa.FixedSizeListArray.from_arrays(pa.array(array[:take].astype(np.int32).ravel()), width)
                for array in (getattr(batch, name) for name in names)
            ]
            writer.write_table(pa.table(columns, schema=schema))
            left -= take
    return written
