"""The claims of the papers, each with the experiment that tries it here.

    claim      what a claim is: sentence, source, experiment, and how its figures are judged
    catalogue  all claims: one module per method (smoke, ss3d, roi10d, monodr) with a tuple CLAIMS
    kept       the figures of each experiment, as JSON in results/
    page       docs/claims.md, from the figures
    __main__   python -m benchmarks.claims

A new claim is a ``Claim`` in the tuple of its method. Its figures are JSON that ``run`` returns, and its verdict is what
``judge`` concludes from them: no verdict is written by hand.
"""
