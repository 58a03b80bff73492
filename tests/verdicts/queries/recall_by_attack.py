# pandas: how much of each attack each method caught (known-benign clients are not counted)
import pandas as pd

verdicts = pd.read_parquet("verdicts.parquet")
poisoned = verdicts[verdicts["poisoned"].eq(True) & ~verdicts["trusted"]]
recall = 1 - poisoned.groupby(["method", "attack"], observed=True)["accepted"].mean().unstack()
