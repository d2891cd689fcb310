"""VOC data and activation ranges: what models are trained, calibrated and scored on."""
