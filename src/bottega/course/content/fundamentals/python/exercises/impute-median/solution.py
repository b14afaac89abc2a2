import numpy as np


def impute_median(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    medians = np.zeros(train.shape[1])
    for column in range(train.shape[1]):
        known = train[~np.isnan(train[:, column]), column]
        if len(known) > 0:
            medians[column] = np.median(known)
    return filled(train, medians), filled(test, medians)


def filled(table: np.ndarray, medians: np.ndarray) -> np.ndarray:
    missing = np.isnan(table)
    values = np.where(missing, medians, table)
    return np.concatenate([values, missing.astype(float)], axis=1)
