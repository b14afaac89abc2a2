import numpy as np


def impute_median(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = [column[~np.isnan(column)] for column in train.T]
    medians = np.array([np.median(each) if len(each) > 0 else 0.0 for each in known])
    results = []
    for table in (train, test):
        missing = np.isnan(table)
        values = np.where(missing, medians, table)
        results.append(np.concatenate([values, missing.astype(float)], axis=1))
    return results[0], results[1]
