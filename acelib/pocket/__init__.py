"""The pocket world: problems whose meaning is known, and the training of the models that ship in `data/`.

No stage of the course imports this package; only `acelib.pocket.laboratory` (which measures) and the scripts that make
`data/` do.
"""
