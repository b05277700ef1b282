"""What `bench` measured, for the terminal."""

import pandas as pd

_NAMES = {
    "data": "data path alone",
    "backbone": "backbones alone",
    "extract": "extract",
    "plain": "plain loop",
}


def print_rates(
    rates: pd.DataFrame, *, images: int, warm_up_s: float, cosine: pd.DataFrame
) -> None:
    """Print medians and ratios.

    Args:
        rates: Images per second: a row a repeat, the columns ``data``, ``backbone``, ``extract``
            and, where it was measured, ``plain``.
        images: How many images each figure is of.
        warm_up_s: Seconds before the first batch was through the backbones.
        cosine: By layer, ``lowest`` and ``mean`` cosine to float32.
    """
    print(
        f"\nimages per second, median of {len(rates)} runs of {images} images (lowest to highest)"
    )
    for column, name in _NAMES.items():
        if column in rates:
            low, middle, high = rates[column].quantile([0, 0.5, 1])
            print(f"  {name:<16} {middle:9.1f}   ({low:.1f} to {high:.1f}){_ratio(rates, column)}")
    print(f"start-up and first batch: {warm_up_s:.1f} s, not counted above")
    for layer, row in cosine.iterrows():
        print(f"cosine to float32, {layer}: lowest {row['lowest']:.5f}, mean {row['mean']:.5f}")


def _ratio(rates: pd.DataFrame, column: str) -> str:
    """Compare within each run, since the machine may be busier in one than in another."""
    if column == "extract":
        ratio = (rates["extract"] / rates["backbone"]).median()
        return f"   {ratio:.2f} of the backbones alone"
    if column == "plain":
        ratio = (rates["extract"] / rates["plain"]).median()
        return f"   extract is {ratio:.1f} times as fast"
    return ""
