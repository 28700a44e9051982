variable "bucket" {
  description = "Name of the bucket that holds analyses, forecasts and verification."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "3 to 63 small letters, digits and hyphens (no dots: TLS needs one label)."
  }
}

variable "prefix" {
  description = "Root of the store inside the bucket, as in MOSAIC_STORE=s3://bucket/prefix; may be empty."
  type        = string
  default     = "operational"

  validation {
    condition     = can(regex("^([a-z0-9._-]+(/[a-z0-9._-]+)*)?$", var.prefix))
    error_message = "Small letters, digits and . _ - between slashes; none at the ends."
  }
}

variable "name" {
  description = "Begins the names of roles, policies and the topic."
  type        = string
  default     = "mosaic"
}

variable "publisher_principals" {
  description = "ARNs that may take the role of the publisher: the instance roles or users of the workers."
  type        = list(string)
  default     = []
}

variable "retention_principals" {
  description = "ARNs that may take the role of retention: who runs the maintenance, and nobody else."
  type        = list(string)
  default     = []
}

variable "kubernetes" {
  description = "Lets service accounts of an EKS cluster take the roles; subjects as in system:serviceaccount:mosaic:worker."
  type = object({
    provider_arn = string
    issuer       = string
    publishers   = list(string)
    retention    = list(string)
  })
  default = null
}

variable "consumer_principals" {
  description = "ARNs of accounts, roles or users that read published forecasts and subscribe to notices."
  type        = list(string)
  default     = []
}

variable "hidden_days" {
  description = "Days after which a deleted or replaced object is gone for good."
  type        = number
  default     = 30

  validation {
    condition     = var.hidden_days >= 7
    error_message = "At least a week, so that a mistake can be found and undone."
  }
}

variable "infrequent_access_days" {
  description = "Days after which forecasts and analyses move to the infrequent-access class."
  type        = number
  default     = 60

  validation {
    condition     = var.infrequent_access_days >= 30
    error_message = "S3 moves nothing before 30 days."
  }
}

variable "access_log_bucket" {
  description = "Bucket for server access logs; null for none."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything here."
  type        = map(string)
  default     = { project = "mosaic-forecast" }
}
