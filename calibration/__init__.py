"""VOC data: the pictures and masks that models are trained, calibrated and scored on."""
