"""Names of dimensions and coordinates, as WeatherBench and CF have them."""

from __future__ import annotations

from typing import Final

INIT_TIME: Final = "init_time"
NUMBER: Final = "number"
LEAD_TIME: Final = "lead_time"
VALID_TIME: Final = "valid_time"
LEVEL: Final = "level"
LATITUDE: Final = "latitude"
LONGITUDE: Final = "longitude"

COORDINATE_ATTRIBUTES: Final[dict[str, dict[str, str]]] = {
    INIT_TIME: {"standard_name": "forecast_reference_time", "long_name": "initial time"},
    NUMBER: {"standard_name": "realization", "long_name": "ensemble member", "units": "1"},
    LEAD_TIME: {"standard_name": "forecast_period", "long_name": "time since initial time"},
    VALID_TIME: {"standard_name": "time", "long_name": "valid time"},
    LEVEL: {
        "standard_name": "air_pressure",
        "long_name": "pressure",
        "units": "hPa",
        "positive": "down",
        "axis": "Z",
    },
    LATITUDE: {
        "standard_name": "latitude",
        "long_name": "latitude",
        "units": "degrees_north",
        "axis": "Y",
    },
    LONGITUDE: {
        "standard_name": "longitude",
        "long_name": "longitude",
        "units": "degrees_east",
        "axis": "X",
    },
}
