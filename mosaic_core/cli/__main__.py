from mosaic_core.cli import main

main()
