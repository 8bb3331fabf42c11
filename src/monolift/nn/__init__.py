"""Network parts that know no boxes."""
