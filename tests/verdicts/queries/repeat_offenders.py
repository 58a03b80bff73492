# polars: the clients that a method rejected most often, and why
import polars as pl

offenders = (
    pl.scan_parquet("verdicts.parquet")
    .filter((pl.col("method") == "encagg") & ~pl.col("accepted"))
    .group_by("client_id")
    .agg(rejected=pl.len(), reasons=pl.col("reason").cast(pl.String).unique().sort())
    .sort(["rejected", "client_id"], descending=[True, False])
    .collect()
)
